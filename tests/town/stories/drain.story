# A node is drained while its agent is restarted, and so is the next one; then both take part again.
agents 4
addresses 8
at 12s drain n1 waiting 1s
at 14s restart n1 back 600ms
at 20s drain n2 waiting 0s
at 40s undrain n2
at 55s undrain n1
ends 72s
holds
