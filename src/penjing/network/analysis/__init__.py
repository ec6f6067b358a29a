"""Analysis: what is found out about a network, which stays as it is."""
