# A node that held a third of a thousand addresses is restarted: each of its addresses moves away once and back once.
agents 3
addresses 1000
at 12s restart n2
ends 24s
holds
