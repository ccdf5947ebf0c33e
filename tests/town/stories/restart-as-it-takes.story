# A node is restarted in the moment in which an address was handed over to it.
seed 2588
agents 6
addresses 7
file key 1: 
file key 2 old 1: 
at 6624ms restart n3 with 2
at 9623ms restart n3 with 2
at 10212ms restart n3 with 2
ends 14752ms
holds
