"""Aim: what a fit is asked for: what to make small, what may be lost, and what is too much."""

from __future__ import annotations

import math
from dataclasses import dataclass

from penjing.targets import in_words
from penjing.trials.judgement.comparison import is_disturbed
from penjing.trials.judgement.goal import share
from penjing.trials.trial import Trial


@dataclass(frozen=True)
class Aim:
    """What makes one file better than another, and what no file may exceed.

    Attributes:
        goal: see `penjing.trials.judgement.goal.weights_of`.
        max_drop: the budget in the metric's unit.
        max_ms: the longest time of one sample, in milliseconds; None for any.
        max_kb: the largest file, in kilobytes of 1,000 bytes; None for any.

    >>> Aim("size", max_kb=300).has_limits
    True
    """

    goal: str = "latency"
    max_drop: float = 1.0
    max_ms: float | None = None
    max_kb: float | None = None

    @property
    def has_limits(self) -> bool:
        """Whether anything beside the budget is limited."""
        return self.max_ms is not None or self.max_kb is not None

    def share(self, trial: Trial, original: Trial, at_most: bool = False) -> float:
        """What a file takes of the original's by the goal; infinite if that wasn't measured. See
        `penjing.trials.judgement.goal.share`."""
        of = share(self.goal, trial, original, at_most)
        return math.inf if of is None else of

    def exceeded(self, trial: Trial) -> str:
        """Which limits a trial's file exceeds, in words; empty if none."""
        return " and ".join(filter(None, (self._time(trial), self._size(trial))))

    @property
    def limits(self) -> str:
        """The limits in words; empty without any."""
        time = "" if self.max_ms is None else f"at most {self.max_ms:g} ms"
        size = "" if self.max_kb is None else f"at most {self.max_kb:g} kB"
        return ", ".join(filter(None, (time, size)))

    def _time(self, trial: Trial) -> str:
        if self.max_ms is None:
            return ""
        if trial.latency is None or is_disturbed(trial.latency):
            return f"has no reliable time, and at most {self.max_ms:g} ms are allowed"
        took = trial.latency.latency_ms
        if took <= self.max_ms:
            return ""
        return f"takes {took:.3g} ms, and at most {self.max_ms:g} are allowed"

    def _size(self, trial: Trial) -> str:
        size = trial.measurement.file_bytes
        if self.max_kb is None or size is None or size <= 1000 * self.max_kb:
            return ""
        return f"has {in_words(size)}, and at most {self.max_kb:g} kB are allowed"
