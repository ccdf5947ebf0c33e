# Files that name other pools in their [[l2]] give it other numbers, so agents with different files do not know each other's weights:
# when n3 leaves, n1 and n2 must not both begin at once: a client would believe the one that yields for 300 to 400 ms.
seed 2
agents 3
addresses 8
file key 1: pools = ["lan"]; preference = [{ nodes = "kubernetes.io/hostname=n3", weight = 100 }]
file key 1: preference = [{ nodes = "kubernetes.io/hostname=n1", weight = 100 }]
at 3505ms restart n3 with 2
at 4992ms restart n2 with 2
at 7817ms restart n3 with 2
ends 8173ms
