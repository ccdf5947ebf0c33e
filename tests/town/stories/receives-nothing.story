# C4 of a review: what is sent to n2 is lost, what it sends passes. It takes nothing from the others, and they take what it held.
agents 3
addresses 8
at 12s deafen n2 to n1
at 12s deafen n2 to n3
at 12s deafen n2 to client
at 12s deafen n2 to router
at 52s undeafen n2 to n1
at 52s undeafen n2 to n3
at 52s undeafen n2 to client
at 52s undeafen n2 to router
ends 75s
holds
