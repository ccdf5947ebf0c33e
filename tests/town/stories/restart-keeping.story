# Agents are restarted one after the other, and each is back before its time is over: no address moves, and nobody asks for one.
agents 4
addresses 8
at 12s restart n1 keeping 5s
at 24s restart n2 back 900ms keeping 5s
at 36s restart n3 back 2500ms keeping 5s
at 50s restart n4 back 40ms keeping 5s
at 50600ms restart n4 keeping 5s
ends 62s
holds
