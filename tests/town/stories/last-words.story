# The heir of an address announces it while the last announcement of a node that stops is still under way.
seed 2588
agents 6
addresses 7
file key 1: 
file key 2 old 1: 
at 5252ms restart n5 with 2
at 6624ms restart n3 with 2
at 9623ms restart n3 with 2
at 9961ms restart n1 with 2
at 10212ms restart n3 with 2
ends 26s
holds
