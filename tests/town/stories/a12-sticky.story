# A12: one owner of 960 sticky addresses, and a label of the nodes so long that a page of what is held never fits beside it.
# n2 comes back after a while.
agents 2
addresses 960
label rack=a-rather-long-name-of-a-rack-in-some-room
file key 1: sticky = true; nodes = "rack"
at 1500ms kill n2
at 13s start n2
ends 15s
holds
