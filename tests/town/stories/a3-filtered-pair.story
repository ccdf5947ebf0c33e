# A3: no pulses pass between two nodes, and they lose each other for 1.5 s. Both go on for ever.
agents 2
addresses 10
at 12s firewall n1 both
at 24s split n1 client router / n2
at 25500ms heal
ends 40s
breaks two-owners
