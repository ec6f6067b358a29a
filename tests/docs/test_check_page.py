"""The page about checks in CI has every key of a file of budgets, and its example can be read."""

from __future__ import annotations

import re

from penjing.tools.check.budgets import OF_A_FILE, OF_ALL, read_budgets
from penjing.tools.check.rules import RULES
from penjing.tools.check.values import UNITS
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "guides" / "ci.md").read_text()


def test_the_tables_have_every_rule_and_key_and_no_other() -> None:
    rows = [re.findall(r"`(\w+)`", row) for row in re.findall(r"^\| (`[^|]+) \|", PAGE, re.M)]
    told = {key for row in rows for key in row}
    assert told == {*RULES, *OF_ALL, *OF_A_FILE} - {"path"}
    assert all(f"`{unit}`" in PAGE for unit in UNITS)


def test_a_rule_tells_what_it_needs() -> None:
    for key, rule in RULES.items():
        (needs,) = re.findall(rf"^\| `{key}` \|.*\| ([^|]*) ?\|$", PAGE, re.M)
        assert re.findall(r"`(\w+)`", needs) == list(rule.needs)


def test_the_example_can_be_read() -> None:
    budgets = read_budgets(ROOT / "examples" / "check" / "penjing.toml")
    (budget,) = budgets.files
    assert len(budget.limits) == 6
