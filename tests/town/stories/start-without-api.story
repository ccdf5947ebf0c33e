# An agent starts without the API server: what it remembers is no reason to take an address from a node that hears it.
seed 9916
agents 6
addresses 4
policy local
file key 1: 
at 5622ms kill n1
at 10987ms cut-api n1
at 11697ms start n1
at 13538ms endpoint 0 to n5
ends 19650ms
holds
