# The same, and the node that is not heard restarts: it learns anew that it is not, and then asks the third one no more.
seed 4
agents 3
addresses 6
file key 1: 
at 10041ms deafen n3 to n2
at 30s restart n2
ends 60s
holds
