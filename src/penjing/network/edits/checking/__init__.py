"""Checking: whether what a plan holds is known, well formed, and fits the network."""
