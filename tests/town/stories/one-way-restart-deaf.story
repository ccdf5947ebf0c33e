# The same, and the node that does not hear restarts.
seed 4
agents 3
addresses 6
file key 1: 
at 10041ms deafen n3 to n2
at 30s restart n3
ends 60s
holds
