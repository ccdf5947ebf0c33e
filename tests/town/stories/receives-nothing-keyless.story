# The same without a key. n2 takes nothing as a standby; 5 s after it hears again its agent is killed.
agents 3
addresses 8
file key 0:
at 12s numb n2
at 52s unnumb n2
at 57s kill n2
ends 90s
holds
