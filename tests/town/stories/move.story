# An operator chooses the node of an address, which is restarted, drained, and chosen no more.
agents 3
addresses 4
at 12s move 0 to n2
at 14s move 1 to n2
at 26s restart n2 back 1s
at 40s drain n2 waiting 200ms
at 55s undrain n2
at 70s move 0 back
at 82s move 1 back
ends 98s
holds
