# Seed 36105. A holder without a link granted what it had to a node that could not hear it; that counted against the node for 10 s, and what the holder could not serve later stayed with it.
seed 36105
agents 3
addresses 5
file key 1: 
file key 1: announce-again = "1s, 3s"
at 14456ms plug n2 blocked 535ms
at 14783ms unplug n3
at 16811ms plug n3 blocked 2392ms
at 21158ms reboot n2 down 9577ms path 1875ms
at 23651ms path n3 broken
ends 25552ms
holds
