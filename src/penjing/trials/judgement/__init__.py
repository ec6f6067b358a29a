"""Judgement: which trials keep the budget, which is the answer, and what can be said of each."""
