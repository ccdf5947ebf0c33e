# K2: no pulses pass, n2 is cut off, and then its frames reach n1 and those of n1 do not reach n2. n1 gives all back that it took from n2.
agents 3
addresses 10
at 12s prune ipv6
at 12s prune ipv4
at 24s split n2 / n1 n3 client router
at 32s deafen n2 to n1
at 32s heal
ends 80s
holds
