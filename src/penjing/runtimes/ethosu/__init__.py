"""Ethos-U: files of Arm NPUs, by Vela."""
