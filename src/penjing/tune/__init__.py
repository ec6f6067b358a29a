"""Tuning: train pruned or quantized networks, with distillation."""
