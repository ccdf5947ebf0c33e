# A node stands still while another one is restarted and has back what it had: what it reads then at once ends with the word of a
# node that it has yet to hear an answer from.
seed 10807
agents 6
addresses 7
file key 1: 
at 11291ms restart n2
at 11299ms freeze n6 5878ms
ends 29000ms
holds
