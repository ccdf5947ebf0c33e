# A4: no pulses pass between three busy nodes with 320 addresses.
agents 3
addresses 320
judging 1ms
at 2s prune ipv6
at 2s prune ipv4
ends 20s
holds
