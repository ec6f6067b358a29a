"""Evaluation: candidates made into files, and what is measured on them."""
