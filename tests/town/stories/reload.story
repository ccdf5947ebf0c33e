# A1 without a restart: a preference is read by one running agent after the other, and read back. Then a file that asks nothing to
# move, and another key.
agents 3
addresses 6
file key 1: preference = [{ nodes = "kubernetes.io/hostname=n1", weight = 100 }]
file key 1: preference = [{ nodes = "kubernetes.io/hostname=n2", weight = 100 }]
file key 1: preference = [{ nodes = "kubernetes.io/hostname=n1", weight = 100 }]; announce-again = "1s, 3s"
file key 2 old 1: preference = [{ nodes = "kubernetes.io/hostname=n1", weight = 100 }]
at 12s reload n1 with 2
at 15s reload n2 with 2
at 18s reload n3 with 2
at 30s reload n3 with 1
at 33s reload n2 with 1
at 36s reload n1 with 1
at 120s reload n1 with 3
at 121s reload n2 with 3
at 122s reload n3 with 3
at 130s reload n1 with 4
at 131s reload n2 with 4
at 132s reload n3 with 4
ends 150s
holds
