"""Judgement: which trials keep the budget, which one is the answer, and how they compare."""
