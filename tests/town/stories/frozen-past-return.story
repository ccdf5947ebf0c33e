# A node is handed an address over and stands still; the one that it had it from comes back meanwhile and has it again.
seed 10564
agents 4
addresses 4
file key 1: 
at 4449ms freeze n4 135ms
at 10096ms restart n3
at 10140ms freeze n4 6524ms
ends 29000ms
holds
