"""Arithmetic: numbers and tensors alone, without a network."""
