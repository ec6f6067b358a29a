"""Check: whether files keep the rules that a file of budgets sets for them, as a gate in CI."""
