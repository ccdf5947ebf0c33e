# A node asks again where its first request was granted in vain.
seed 3700
agents 3
addresses 7
file key 1: 
at 14705ms unplug n2
at 17977ms unplug n1
at 19353ms plug n1 blocked 3336ms
at 23931ms plug n2 blocked 309ms
ends 39550ms
holds
