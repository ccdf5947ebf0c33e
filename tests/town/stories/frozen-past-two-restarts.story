# Two nodes are restarted one after the other, and the first stands still while the second has its addresses back.
seed 10216
agents 3
addresses 7
file key 1: 
at 4593ms restart n2
at 4986ms restart n1
at 5021ms freeze n2 5649ms
ends 23000ms
holds
