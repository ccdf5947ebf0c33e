# A14: an agent does not run for a moment shorter than the time in which others are found dead, now and then.
agents 6
addresses 30
at 12s freeze n1 250ms
at 15s freeze n2 250ms
at 18s freeze n3 250ms
at 21s freeze n4 290ms
at 24s freeze n5 290ms
at 27s freeze n6 290ms
at 30s freeze n1 290ms
at 33s freeze n2 290ms
at 36s freeze n3 290ms
ends 40s
holds
