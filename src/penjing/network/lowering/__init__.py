"""Lowering: forms of a graph that runtimes take."""
