# A2: n1's firewall drops its pulses, ARP passes. Then n3's agent is restarted, and n2 takes what n3 only should have owned.
agents 3
addresses 35
at 12s firewall n1 out
at 24s restart n3
ends 40s
holds
