# Seed 36958. The only node on the side of a router dies during a split; the announcements of those who took its addresses were over.
seed 36958
agents 6
addresses 5
file key 1: 
file key 1: announce-again = "1s, 3s"
at 3783ms split n5 router / n1 n2 n3 n4 n6 client foreign
at 9191ms unplug n5
at 13181ms heal
ends 16584ms
holds
