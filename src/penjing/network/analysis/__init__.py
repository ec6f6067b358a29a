"""Analysis: functions that examine a network without changing it."""
