"""Trials: candidates, what their files measured, and the ledger that holds them."""
