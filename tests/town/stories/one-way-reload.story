# Two do not hear each other in one direction, a third has the address, and files are read that ask nothing to move.
seed 7231
agents 4
addresses 7
file key 1: 
file key 1: announce-again = "1s, 3s"
at 4402ms deafen n2 to n3
at 14668ms reload n3 with 2
at 25605ms reload n3 with 1
ends 40s
holds
