# Two nodes take what a third one leaves in the same moment, because their files differ: clients believe the one that goes on.
seed 9839
agents 12
addresses 2
file key 1: preference = [{ nodes = "kubernetes.io/hostname=n4", weight = 100 }]
file key 1: pools = ["lan"]; preference = [{ nodes = "kubernetes.io/hostname=n5", weight = 100 }]
at 5602ms restart n9 with 2
at 6728ms restart n2 with 2
at 8982ms restart n5 with 2
at 12136ms move 1 to n6
at 13319ms restart n4 with 2
at 15184ms restart n7 with 2
at 16236ms restart n6 with 2
ends 30s
holds
