# The same heals: the address goes where it belongs.
seed 4
agents 3
addresses 6
file key 1: 
at 10041ms deafen n3 to n2
at 60s undeafen n3 to n2
ends 80s
holds
