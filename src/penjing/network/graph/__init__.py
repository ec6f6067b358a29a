"""Graph: the network itself, its tensors, and the few ways to change it."""
