# A13: policy Local. n1 loses its way to the API server, then the endpoints move to n2.
agents 3
addresses 4
policy local
at 12s cut-api n1
at 20s endpoint 0 to n2
at 20s endpoint 1 to n2
at 20s endpoint 2 to n3
ends 40s
holds
