# The agents are restarted one after the other: each node gives up its addresses and has them back.
agents 3
addresses 6
at 12s restart n1
at 24s restart n2
at 36s restart n3
ends 50s
holds
