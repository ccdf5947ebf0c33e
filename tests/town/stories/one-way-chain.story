# n2 does not hear n3, and n1 does not hear n2. What n1 takes from n2 goes to n3, from which n2 takes it once more, as it hears of no holder: without end, where n3 does not learn from it.
agents 5
addresses 2
at 9505ms deafen n2 to n3
at 11385ms deafen n1 to n2
ends 60s
holds
