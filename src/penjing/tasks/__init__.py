"""Tasks: the model, data, loss and metric that the user brings."""
