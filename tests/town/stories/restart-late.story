# Agents are restarted and are back only when the others have taken over, at the moment when they do, and never.
agents 4
addresses 8
at 12s restart n1 back 4s keeping 2s
at 28s restart n2 back 1650ms keeping 2s
at 42s restart n3 back 2s keeping 2s
at 56s restart n4 back 20s keeping 2s
ends 92s
holds
