"""Capture: from a PyTorch model to a graph."""
