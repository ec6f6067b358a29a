"""Tasks: what a user brings: a model, data, a loss and a metric."""
