"""Runtimes: each writes a kind of file that its engine runs, and runs it."""
