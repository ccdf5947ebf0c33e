# K1: without a key the link alone tells that the agent of an owner stopped, died or restarted. Its Node stays Ready.
agents 3
addresses 6
file key 0: 
at 12s stop n1
at 24s start n1
at 36s kill n2
at 48s start n2
at 60s restart n3
at 72s freeze n1 3s
ends 90s
holds
