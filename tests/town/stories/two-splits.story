# A client goes from one segment to another with each of two splits. In the last it is with a node alone, which hears nobody any
# longer: it lost the others one after the other, so it announces once more what it holds.
seed 12094
agents 3
addresses 2
file key 1: 
file key 1: announce-again = "1s, 3s"
at 3736ms split n2 n3 router foreign / n1 client
at 6834ms split n3 client / n1 n2 router foreign
ends 9426ms
holds
