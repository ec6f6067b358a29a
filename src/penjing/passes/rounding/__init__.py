"""Rounding: passes that quantize a network, and passes that refine its quantization."""
