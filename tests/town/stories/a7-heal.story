# A7: n1 is cut off with the router, n2 and n3 take over for the client on their side, and the partition heals.
agents 3
addresses 6
file key 1: preference = [{ nodes = "kubernetes.io/hostname=n1", weight = 100 }]
at 12s split n1 router / n2 n3 client
at 30s heal
ends 60s
holds
