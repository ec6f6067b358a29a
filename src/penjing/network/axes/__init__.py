"""Axes: which dimensions shrink together."""
