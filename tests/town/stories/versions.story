# Nodes are upgraded one by one from a version that says and reads less of a pulse to one that says more, and back. Nothing moves for long, and no client notices.
agents 4
addresses 8
file key 1 version earlier:
file key 1:
file key 1 version later:
at 12s restart n1 with 2
at 16s restart n2 with 2
at 20s restart n3 with 2
at 24s restart n4 with 2
at 40s restart n1 with 3
at 44s restart n2 with 3
at 48s restart n3 with 3
at 52s restart n4 with 3
at 68s restart n2 with 1
at 72s kill n3
at 76s start n3
at 80s restart n4 with 1
ends 100s
holds
