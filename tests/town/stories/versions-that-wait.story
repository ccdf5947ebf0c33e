# A restart in which addresses stay, beside a node of a version that knows of none, of this one, and of a later one: it says goodbye beside the first.
agents 3
addresses 6
file key 1:
file key 1 version earlier:
file key 1 version later:
at 12s restart n3 with 2
at 24s restart n1 back 400ms keeping 3000ms
at 36s restart n3 with 3
at 48s restart n1 back 400ms keeping 3000ms
at 60s restart n3 back 400ms keeping 3000ms
ends 75s
holds
