"""Measuring: sizes, costs, latency, memory, accuracy, and how far files depart from networks."""
