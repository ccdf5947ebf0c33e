# A3: no pulses pass between two nodes, and they lose each other for 1.5 s. They are one when they hear each other again.
agents 2
addresses 10
at 12s firewall n1 both
at 24s split n1 client router / n2
at 25500ms heal
ends 40s
holds
