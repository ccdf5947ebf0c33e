# An agent starts anew beside an owner that does not hear it: the two are one all the same.
seed 1822
agents 4
addresses 3
file key 1: 
at 7917ms deafen n3 to n1
at 8597ms kill n1
at 9330ms start n1
ends 17496ms
holds
