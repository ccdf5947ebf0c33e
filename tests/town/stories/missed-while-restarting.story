# Seed 33017. An address moves while a better node restarts, which asks for it when it is back.
seed 33017
agents 3
addresses 8
file key 1: 
at 8902ms drain n3 waiting 2067ms
at 10687ms restart n1 back 612ms keeping 3054ms
ends 11714ms
holds
