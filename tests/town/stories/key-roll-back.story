# Another key is read by one running agent after the other, and read back: the first file does not accept the new key.
agents 4
addresses 3
file key 1:
file key 2 old 1:
at 12s reload n1 with 2
at 13s reload n2 with 2
at 14s reload n3 with 2
at 15s reload n4 with 2
at 60s reload n1 with 1
at 64s reload n2 with 1
at 68s reload n3 with 1
at 72s reload n4 with 1
ends 90s
holds
