"""Tuning: training of networks that were cut or rounded, and distillation."""
