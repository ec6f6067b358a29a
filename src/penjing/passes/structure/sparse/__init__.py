"""Single weights: which layers own theirs, which go, and what the others become."""
