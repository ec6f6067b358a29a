"""Engines: where evaluators run."""
