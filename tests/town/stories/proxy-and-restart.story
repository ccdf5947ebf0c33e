# A node is restarted while a station answers every question: its pauses between two questions grow, and the last goes on after
# the station is quiet, for no longer than all before it.
seed 15855
agents 3
addresses 3
policy local
file key 1: 
file key 2 old 1: 
at 16849ms endpoint 0 to n3
at 17418ms proxy on
at 19251ms restart n3 with 2
at 25660ms proxy off
ends 27285ms
holds
