"""Comparison: how two files' times compare, each known as a ratio to the original's."""

from __future__ import annotations

from dataclasses import dataclass

from penjing.contract import Latency
from penjing.trials.judgement.wording import UNRELIABLE, time_taken

DISTURBED = f"its {UNRELIABLE}"
SURELY = 0.8
"""If other load disturbed a ratio and its whole interval is below this, the load isn't why. A file
that was timed beside itself with a busy program on each core took 0.99 to 1.01 of its own time
(`benchmarks/check_alarms.py`), because both run in the same windows."""


@dataclass(frozen=True)
class Comparison:
    """One file's time over another's.

    Attributes:
        ratio: of the two.
        low, high: the widest interval that both files' own intervals allow.
        disturbed: whether either timing is unreliable; then nothing follows from it.
    """

    ratio: float
    low: float
    high: float
    disturbed: bool = False

    @property
    def faster(self) -> bool:
        """Whether the first one is faster beyond doubt."""
        return self.high < 1 and not self.disturbed

    @property
    def slower(self) -> bool:
        """Whether the first one is slower beyond doubt."""
        return self.low > 1 and not self.disturbed


def compared(mine: Latency, theirs: Latency) -> Comparison:
    """How `mine` compares with `theirs`.

    >>> half = Latency(1, 1, 0.5, 0.4, 0.6, 20)
    >>> compared(half, Latency(2, 2, 1.0, 1.0, 1.0, 20))
    Comparison(ratio=0.5, low=0.4, high=0.6, disturbed=False)
    """
    return Comparison(
        mine.ratio / theirs.ratio,
        mine.ratio_low / theirs.ratio_high,
        mine.ratio_high / theirs.ratio_low,
        is_disturbed(mine) or is_disturbed(theirs),
    )


def is_disturbed(times: Latency) -> bool:
    """Whether other load spoilt the ratio; the original's own, 1 to 1, nothing can spoil."""
    return times.disturbed and times.ratio_low != times.ratio_high


def surely_faster(times: Latency) -> bool:
    """Whether a file is faster than the original by more than any disturbance explains.

    >>> surely_faster(Latency(1, 1, 0.5, 0.4, 0.6, 20, disturbed=True))
    True
    >>> surely_faster(Latency(1, 1, 0.9, 0.85, 0.95, 20, disturbed=True))
    False
    """
    return times.ratio_high < SURELY


def tie(mine: Latency, theirs: Latency) -> bool:
    """Whether the two can't be told apart: neither is faster beyond doubt, and each one's figure
    lies within the other's interval. A wide interval alone makes no tie.

    >>> wide, slow = Latency(1, 1, 0.5, 0.4, 0.95, 20), Latency(2, 2, 0.94, 0.92, 0.96, 20)
    >>> tie(wide, slow), tie(wide, wide)
    (False, True)
    """
    comparison = compared(mine, theirs)
    if comparison.disturbed or comparison.faster or comparison.slower:
        return False
    mutual = mine.ratio_low <= theirs.ratio <= mine.ratio_high
    return mutual and theirs.ratio_low <= mine.ratio <= theirs.ratio_high


def told(mine: Latency, theirs: Latency, rival: str) -> str:
    """One line: what is true of a file's time beside its rival's.

    >>> told(Latency(1, 1, 1.5, 1.4, 1.6, 20), Latency(1, 1, 1.0, 1.0, 1.0, 20), "int8")
    'takes 1.50 times as long as int8 (1.40 to 1.60)'
    """
    if is_disturbed(mine):
        return DISTURBED
    comparison = compared(mine, theirs)
    if comparison.disturbed:
        return f"can't be compared with {rival}, whose timing is unreliable"
    figures = comparison.ratio, comparison.low, comparison.high
    if comparison.faster or comparison.slower:
        return time_taken(*figures, rival)
    return f"is neither clearly faster nor clearly slower than {rival}: it {time_taken(*figures)}"
