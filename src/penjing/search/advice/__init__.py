"""Advice: which method pays for a network on a device, by trying each without training."""
