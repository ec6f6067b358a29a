"""Capture: turn a PyTorch model into a graph."""
