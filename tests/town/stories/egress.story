# Two Services with egress, each with a pod on every node, through the death of an owner, a crash and a restart of agents, the annotation
# that goes and comes, a Service that is deleted and made anew, and pods that take over addresses of others.
agents 3
addresses 3
egress 2
at 12s kill n1
at 16s start n1
at 20s restart n2 keeping 3000ms
at 24s reboot n3 down 4000ms path 1000ms
at 34s egress 0 off
at 37s egress 0 on
at 40s service 1 deleted
at 44s service 1 made
at 52s pod 0 on n1 other
at 55s pod 0 on n1 own
at 58s pod 0 on n2 own
at 60s move 0 to n1
at 63s move 0 to n3
at 66s move 0 back
at 69s drain n3 waiting 1000ms
at 75s undrain n3
at 78s split n1 client router / n2 n3
at 82s heal
ends 100s
holds
