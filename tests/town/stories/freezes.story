# A frozen owner is back so soon that it never hears that another node had its address: who gave way says where it is.
seed 6526
agents 3
addresses 7
file key 1: 
at 4964ms freeze n1 178ms
at 11538ms freeze n3 234ms
at 16234ms freeze n1 470ms
at 21856ms freeze n2 736ms
at 27521ms freeze n2 427ms
ends 33859ms
holds
