# The same, and a switch is cut for long: two that hear each other again are one.
agents 3
addresses 10
file key 0: 
at 12s split n2 / n1 n3 client router
at 67s heal
ends 95s
holds
