"""Wording: figures and comparisons in words, the same in verdicts, reasons, notes and reports."""

from __future__ import annotations

from collections.abc import Sequence

UNRELIABLE = "timing is unreliable, because other programs were running"


def points(value: float) -> str:
    """Points of a metric, as a budget has them.

    >>> points(1.0), points(0.5)
    ('1 point', '0.5 points')
    """
    text = f"{value:g}"
    return f"{text} point" if text == "1" else f"{text} points"


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


def score_beside(gain: float, metric: str) -> str:
    """How a score compares with another one.

    Args:
        gain: in points; negative is a loss.

    >>> score_beside(-0.14, "accuracy"), score_beside(0.0, "accuracy")
    ('loses 0.14 points of accuracy', 'has the same accuracy')
    """
    figure = f"{abs(gain):.2f}"
    if figure == "0.00":
        return f"has the same {metric}"
    return f"{'gains' if gain > 0 else 'loses'} {figure} points of {metric}"


WHAT = {"latency": "time", "size": "bytes", "memory": "memory"}
"""By figure of a goal, of what a file takes a share."""


def share_in_words(share: float, goal: str) -> str:
    """What a file takes of the original's, by a goal.

    >>> share_in_words(0.25, "size"), share_in_words(0.5, "latency=2,size=1")
    ('0.25 of the bytes', '0.50 by latency=2,size=1')
    """
    return f"{ratio(share)} of the {WHAT[goal]}" if goal in WHAT else f"{ratio(share)} by {goal}"


def lost_at_most(drop: float, bound: float, confidence: float) -> str:
    """A drop with its bound.

    >>> lost_at_most(0.6, 1.43, 0.95)
    'loses 0.60 points, and with 95 % confidence at most 1.43'
    >>> lost_at_most(-0.2, 0.5, 0.95)
    'gains 0.20 points, and with 95 % confidence loses at most 0.50'
    """
    sure = f"with {confident(confidence)}"
    if bound < 0:
        return f"gains {-drop:.2f} points, and {sure} at least {-bound:.2f}"
    if drop < 0:
        return f"gains {-drop:.2f} points, and {sure} loses at most {bound:.2f}"
    return f"loses {drop:.2f} points, and {sure} at most {bound:.2f}"


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
