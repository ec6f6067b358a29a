"""Graph: the network itself, its tensors, and the functions that change it."""
