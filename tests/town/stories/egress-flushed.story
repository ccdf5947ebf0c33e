# Linux before 6.9: a flush of all rules takes the table, on the owner and on the nodes of pods, also while the address moves, and again
# and again, until the node counts as unguarded and gives the address away.
agents 3
addresses 2
egress 2
kernel old
at 12s flush n1
at 12s flush n2
at 12s flush n3
at 14s move 0 to n1
at 14020ms flush n1
at 14030ms flush n2
at 16s move 0 to n2
at 16002ms flush n1
at 16004ms flush n2
at 20s flush n2
at 20500ms flush n2
at 21s flush n2
at 21500ms flush n2
at 22s flush n2
at 22500ms flush n2
at 40s egress 1 off
at 40010ms flush n3
at 41s kill n3
at 43s start n3
at 45s egress 1 on
at 50s kill n2
at 50100ms flush n1
at 50200ms flush n3
at 54s start n2
ends 80s
holds
