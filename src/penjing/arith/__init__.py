"""Arithmetic: functions of numbers and tensors that know no networks."""
