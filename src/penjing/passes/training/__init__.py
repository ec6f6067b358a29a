"""Training: the pass that trains a network."""
