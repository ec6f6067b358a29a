"""Measuring: sizes, costs, latency, memory, accuracy, and how files differ from their networks."""
