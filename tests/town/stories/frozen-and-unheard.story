# A node stands still while another is heard again, and asks on the link for what that one has before it has read anything.
seed 13645
agents 3
addresses 4
file key 1: 
at 5456ms restart n1
at 5456ms freeze n2 932ms
at 6189ms restart n3
at 6254ms freeze n1 6769ms
at 11246ms firewall n1 out
at 16194ms freeze n3 7344ms
at 16339ms firewall n1 open
ends 23638ms
holds
