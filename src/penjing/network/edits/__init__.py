"""Edits: the changes that plans make to a graph, and their checks."""
