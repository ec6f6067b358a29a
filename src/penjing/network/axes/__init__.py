"""Axes: find the dimensions of tensors that shrink together."""
