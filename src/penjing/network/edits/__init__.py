"""Edits: what plans do to a graph, and what is let through."""
