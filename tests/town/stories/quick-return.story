# Agents are killed and are back before the others notice, as they notice, and after that.
agents 3
addresses 8
at 12s kill n1
at 12050ms start n1
at 24s kill n2
at 24310ms start n2
at 36s kill n3
at 37s start n3
ends 52s
holds
