# A8: another key, by a rolling restart of four nodes.
agents 4
addresses 100
file key 1:
file key 2 old 1:
at 12s restart n1 with 2
at 24s restart n2 with 2
at 36s restart n3 with 2
at 48s restart n4 with 2
ends 60s
holds
