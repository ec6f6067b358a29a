"""Rounding: passes that make integers, and those that refine them."""
