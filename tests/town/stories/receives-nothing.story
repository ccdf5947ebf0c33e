# What is sent to n2 is lost, what it sends passes. It takes nothing from the others, and they take what it held.
agents 3
addresses 8
at 12s numb n2
at 52s unnumb n2
ends 75s
holds
