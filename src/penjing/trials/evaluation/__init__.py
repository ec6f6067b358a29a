"""Evaluation: makes candidates into files, and measures the files."""
