# A2 with manifests that name no Node: n1's firewall drops its pulses, ARP passes. The others restart, and have never heard n1.
agents 3
addresses 35
nodes unknown
at 12s firewall n1 out
at 24s restart n3
at 44s restart n2
ends 70s
holds
