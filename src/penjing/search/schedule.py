"""Schedule: the time that a fit has, by a clock; or none at all, and so many epochs a training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from penjing.trials.contract import StoppedError
from penjing.trials.evaluation.instruments import Clock

LATE = 1.1  # times what was allowed; more is said
LONGEST = 3  # stages, that are named then


class NoTimeError(StoppedError):
    """The end is past, and what was begun isn't needed for an answer."""


@dataclass
class Schedule:
    """What is left of the time, and what took it.

    Attributes:
        seconds: that the fit may take; infinite where `epochs` are given.
        epochs: of each training, however long they take. Then nothing depends on the clock: there
            always is time, and everything is tried.
        ending: gives the seconds that the end will take: the last comparison and the test.
        took: seconds by stage.
    """

    clock: Clock
    seconds: float
    epochs: float | None = None
    ending: Callable[[], float] = lambda: 0.0
    took: dict[str, float] = field(default_factory=dict)
    begin: float = field(init=False)

    def __post_init__(self) -> None:
        self.begin = self._entered = self.clock()
        self._stage = "reading the task"
        if self.epochs is not None:
            self.seconds = math.inf

    def spent(self) -> float:
        """Seconds since the beginning."""
        return self.clock() - self.begin

    def left(self) -> float:
        """Seconds until the end has to begin; negative once that is past."""
        return self.seconds - self.spent() - self.ending()

    def affords(self, seconds: float, share: float = 1.0) -> bool:
        """Whether something that takes so long is less than that share of what is left."""
        return seconds < share * self.left()

    def require_time(self) -> None:
        """Raise NoTimeError once nothing is left."""
        if self.left() < 0:
            raise NoTimeError

    def enter(self, stage: str) -> None:
        """Say what the time goes to from now on."""
        now = self.clock()
        self.took[self._stage] = self.took.get(self._stage, 0.0) + now - self._entered
        self._stage, self._entered = stage, now

    def share(self, step: int, steps: int) -> float:
        """How much of it is done, 0..1: of the time, or of the steps where that isn't planned."""
        done = self.spent() / self.seconds if self.epochs is None else step / steps
        return min(done, 0.99)

    def overrun(self) -> str:
        """One line if the end is well past, with what took longest; else empty."""
        if self.spent() <= LATE * self.seconds:
            return ""
        self.enter("")
        longest = sorted(self.took, key=lambda stage: -self.took[stage])[:LONGEST]
        parts = ", ".join(f"{stage} {self.took[stage] / 60:.1f}" for stage in longest)
        return (
            f"took {self.spent() / 60:.1f} minutes instead of {self.seconds / 60:g}; the longest "
            f"of it: {parts}"
        )
