# A node asks for what it held before its restart while it still counts as one that restarts: it is granted that afterwards.
seed 3000
agents 4
addresses 7
file key 1: 
at 5492ms restart n1 back 984ms
at 6468ms restart n2 back 2674ms keeping 4889ms
ends 40s
holds
