# K3: the same for 55 s. Nobody announces anything when the two hear each other again: they are one within a second all the same.
agents 3
addresses 10
at 12s prune ipv6
at 12s prune ipv4
at 24s split n2 / n1 n3 client router
at 79s heal
ends 110s
holds
