"""Blocks: what they cost, and what is lost without them."""
