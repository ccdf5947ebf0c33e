# A1: a preference for n1 is rolled out node by node as one for n2, n1 first.
agents 3
addresses 20
file key 1: preference = [{ nodes = "kubernetes.io/hostname=n1", weight = 100 }]
file key 1: preference = [{ nodes = "kubernetes.io/hostname=n2", weight = 100 }]
at 12s restart n1 with 2
at 24s restart n2 with 2
at 36s restart n3 with 2
ends 50s
holds
