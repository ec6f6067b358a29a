"""Study: what is found out about a network without changing it."""
