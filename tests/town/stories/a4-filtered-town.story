# A4: no pulses pass between four busy nodes with 290 addresses.
agents 4
addresses 290
judging 1ms
at 4s prune ipv6
at 4s prune ipv4
ends 15s
breaks frames two-owners
