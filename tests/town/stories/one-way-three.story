# An owner does not hear the node that is best for its addresses: a third one has them, and they stay there.
seed 4
agents 3
addresses 6
file key 1: 
at 10041ms deafen n3 to n2
ends 80s
holds
