# A node is restarted again before its agent has planned anything: the promise of the first restart stands.
seed 767
agents 4
addresses 5
file key 1: sticky = true
file key 1: nodes = "kubernetes.io/hostname!=n3"
at 8161ms restart n3 back 1161ms keeping 3031ms
at 9332ms restart n3 back 2829ms keeping 3310ms
ends 12s
holds
