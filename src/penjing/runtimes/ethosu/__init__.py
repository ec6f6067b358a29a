"""Ethos-U: files for Arm's NPUs, compiled by Vela."""
