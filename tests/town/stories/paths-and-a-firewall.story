# A node that hears no pulses loses its data path: it knows of nobody to give way to, and whoever asks it asks in vain.
seed 19462
agents 3
addresses 8
file key 1: 
at 16725ms path n2 broken
at 19165ms firewall n1 in
at 20483ms path n1 broken
ends 25085ms
holds
