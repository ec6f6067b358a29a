"""Ranks: which a layer may have, and its factors fitted to data."""
