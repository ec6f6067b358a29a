"""Values: what a file of budgets may hold behind each key."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from penjing.contract import Json

UNITS = ("cpu", "gpu", "npu", "xnnpack")
"""The units on which `penjing verify` may find operators."""


@dataclass(frozen=True)
class Value:
    """A kind of value.

    >>> AMOUNT.fits(1.0), AMOUNT.fits("1 %"), AMOUNT.fits(True)
    (True, False, False)

    Attributes:
        wanted: what it must be, in words.
        fits: whether a value is of this kind.
    """

    wanted: str
    fits: Callable[[Any], bool]


def spelled(value: Json) -> str:
    """A value as the file spells it, or nearly so.

    >>> spelled(["cpu"]), spelled(True), spelled(0.5)
    ('["cpu"]', 'true', '0.5')
    """
    try:
        return json.dumps(value, default=str)[:80]
    except (ValueError, RecursionError):  # thousands of digits, or tables within tables
        return f"a {type(value).__name__} that is too long to show"


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e300 and not math.isnan(value)


def _between(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: _is_number(value) and low <= value <= high


def _are_units(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(unit in UNITS for unit in value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and "\0" not in value


TEXT = Value("text in quotes", _is_text)
NUMBER = Value("a number", _is_number)
POSITIVE = Value("a number above 0", lambda value: _is_number(value) and value > 0)
AMOUNT = Value(
    "0 or more: points (1.0 is one percentage point), or an amount in the metric's own unit",
    lambda value: _is_number(value) and value >= 0,
)
SHARE = Value("a share between 0 and 1, such as 0.98", _between(0, 1))
CONFIDENCE = Value("at least 0.5 and below 1", lambda value: _is_number(value) and 0.5 <= value < 1)
UNITS_LIST = Value(f'a list of units, such as ["cpu"], of {", ".join(UNITS)}', _are_units)
TRUE = Value("true; leave it out to check nothing", lambda value: value is True)
