"""Wording: figures and comparisons in words, the same in verdicts, reasons, notes and reports."""

from __future__ import annotations

import math
from collections.abc import Sequence

from penjing.contract import POINTS, Drop

UNRELIABLE = "timing is unreliable, because other programs were running"


def amount(value: float, unit: str = POINTS) -> str:
    """So much of a metric, as a budget has it.

    >>> amount(1.0), amount(0.5), amount(0.02, ""), amount(0.3, "mm")
    ('1 point', '0.5 points', '0.02', '0.3 mm')
    """
    text = f"{value:g}"
    return "1 point" if (text, unit) == ("1", POINTS) else f"{text} {unit}".rstrip()


def digits(value: float, unit: str = POINTS) -> str:
    """A measured loss without its unit.

    >>> digits(0.6), digits(0.01234, ""), digits(-0.0001)
    ('0.60', '0.0123', '0.00')
    """
    return f"{value:z.2f}" if unit == POINTS else f"{value:z.3g}"


def measured(value: float, unit: str = POINTS) -> str:
    """A measured loss.

    >>> measured(0.6), measured(0.01234, "mm")
    ('0.60 points', '0.0123 mm')
    """
    return f"{digits(value, unit)} {unit}".rstrip()


def figure_digits(score: float, unit: str = POINTS) -> str:
    """The figure of a metric without its unit, as hundredths if losses are.

    >>> figure_digits(0.8798), figure_digits(0.41234, "")
    ('87.98', '0.4123')
    """
    return f"{100 * score:.2f}" if unit == POINTS else f"{score:.4g}"


def figure_unit(unit: str) -> str:
    """The unit of figures whose losses have this unit."""
    return "%" if unit == POINTS else unit


def figure(score: float, unit: str = POINTS) -> str:
    """The figure of a metric.

    >>> figure(0.8798), figure(1.25, "mm")
    ('87.98 %', '1.25 mm')
    """
    return f"{figure_digits(score, unit)} {figure_unit(unit)}".rstrip()


def rounded_up(value: float, unit: str = POINTS) -> float:
    """A budget that a loss would keep: a tenth of a point, or two digits, above it.

    >>> rounded_up(1.43), rounded_up(0.01234, "")
    (1.5, 0.013)
    """
    plain = unit == POINTS or value <= 0
    scale = 10.0 if plain else 10.0 ** (1 - math.floor(math.log10(value)))
    return math.ceil(value * scale) / scale


def ratio(value: float) -> str:
    """A ratio with two decimals; with more where these would tell nothing.

    >>> ratio(0.6), ratio(0.0214), ratio(0.998), ratio(1.0)
    ('0.60', '0.021', '0.998', '1.00')
    """
    if value < 0.1:
        return f"{value:.2g}"
    exact = f"{value:.3f}"
    return exact if 0.995 <= value < 1.005 and exact != "1.000" else f"{value:.2f}"


def time_taken(value: float, low: float, high: float, of: str = "") -> str:
    """What a file takes of another one's time, with the interval.

    Args:
        of: whose time; empty where that is clear.

    >>> time_taken(0.6, 0.58, 0.62)
    'takes 0.60 of the time (0.58 to 0.62)'
    >>> time_taken(1.5, 1.4, 1.6, "int8")
    'takes 1.50 times as long as int8 (1.40 to 1.60)'
    """
    interval = f"({ratio(low)} to {ratio(high)})"
    if value < 1:
        return f"takes {ratio(value)} of the time{f' of {of}' if of else ''} {interval}"
    return f"takes {ratio(value)} times as long{f' as {of}' if of else ''} {interval}"


def size_beside(value: float) -> str:
    """How large a file is beside another one, by the ratio of their bytes.

    >>> size_beside(0.28), size_beside(0.58), size_beside(1.055), size_beside(2.1)
    ('is 3.6 times smaller', 'is 42.0 % smaller', 'is 5.5 % larger', 'is 2.1 times as large')
    """
    if value <= 0.5:
        return f"is {1 / max(value, 1e-9):.1f} times smaller"
    if value >= 2:
        return f"is {value:.1f} times as large"
    change = f"{100 * abs(value - 1):.1f} %"
    if change == "0.0 %":
        return "has the same size" if value == 1 else "has nearly the same size"
    return f"is {change} {'smaller' if value < 1 else 'larger'}"


def score_beside(gain: float, metric: str, unit: str = POINTS) -> str:
    """How a score compares with another one.

    Args:
        gain: negative is a loss.

    >>> score_beside(-0.14, "accuracy"), score_beside(0.0, "accuracy")
    ('loses 0.14 points of accuracy', 'has the same accuracy')
    """
    if digits(abs(gain), unit) in ("0.00", "0"):
        return f"has the same {metric}"
    return f"{'gains' if gain > 0 else 'loses'} {measured(abs(gain), unit)} of {metric}"


def lost_of(metric: str, unit: str = POINTS) -> str:
    """What an axis of losses is called.

    >>> lost_of("accuracy"), lost_of("mAP", ""), lost_of("error", "mm")
    ('points of accuracy lost', 'mAP lost', 'mm of error lost')
    """
    return f"{unit} of {metric} lost" if unit else f"{metric} lost"


WHAT = {"latency": "time", "size": "bytes", "memory": "memory"}
"""By figure of a goal, of what a file takes a share."""


def share_in_words(share: float, goal: str) -> str:
    """What a file takes of the original's, by a goal.

    >>> share_in_words(0.25, "size"), share_in_words(0.5, "latency=2,size=1")
    ('0.25 of the bytes', '0.50 by latency=2,size=1')
    """
    return f"{ratio(share)} of the {WHAT[goal]}" if goal in WHAT else f"{ratio(share)} by {goal}"


def lost_at_most(lost: Drop) -> str:
    """A drop with its bound.

    >>> lost_at_most(Drop(0.6, 1.43, 0.95, 500))
    'loses 0.60 points, and with 95 % confidence at most 1.43'
    >>> lost_at_most(Drop(-0.2, 0.5, 0.95, 500))
    'gains 0.20 points, and with 95 % confidence loses at most 0.50'
    """
    drop, bound, unit = lost.drop, lost.bound, lost.unit
    sure, most = f"with {confident(lost.confidence)}", digits(abs(bound), unit)
    if drop < 0:
        more = "at least" if bound < 0 else "loses at most"
        return f"gains {measured(-drop, unit)}, and {sure} {more} {most}"
    return f"loses {measured(drop, unit)}, and {sure} at most {most}"


def duration(seconds: float) -> str:
    """A time that people can imagine.

    >>> duration(0.638), duration(31.3), duration(162)
    ('0.638 s', '31.3 s', '2.7 minutes')
    """
    return f"{seconds:.3g} s" if seconds < 90 else f"{seconds / 60:.1f} minutes"


def confident(confidence: float) -> str:
    """How sure a bound is.

    >>> confident(0.95)
    '95 % confidence'
    """
    return f"{100 * confidence:.4g} % confidence"


def listed(parts: Sequence[str]) -> str:
    """Parts of a sentence, one after the other.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))
