# A port that forwards late: the node was alone with all addresses and keeps one whose owner has died meanwhile.
seed 898
agents 6
addresses 8
file key 1: 
at 15867ms unplug n2
at 16265ms plug n2 blocked 3227ms
at 18957ms plug n2 blocked 3985ms
at 22912ms unplug n1
ends 28867ms
holds
