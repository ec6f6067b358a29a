"""Schedule: the time that a fit has, by a clock; or a number of epochs for each training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from penjing.trials.contract import StoppedError
from penjing.trials.evaluation.instruments import Clock

LATE = 1.1  # times the time allowed; a fit that took longer says so
LONGEST = 3  # stages that it names then


class NoTimeError(StoppedError):
    """The time is over, and what was begun isn't needed for an answer."""


@dataclass
class Schedule:
    """How much time is left, and what took the rest.

    Attributes:
        seconds: that the fit may take; infinite where `epochs` are given.
        epochs: of each training, however long they take. Then nothing depends on the clock: time
            never runs out, and everything is tried.
        ending: gives the seconds that the last comparison and the test will take.
        took: seconds by stage.
    """

    clock: Clock
    seconds: float
    epochs: float | None = None
    ending: Callable[[], float] = lambda: 0.0
    took: dict[str, float] = field(default_factory=dict)
    begin: float = field(init=False)

    def __post_init__(self) -> None:
        self.start()
        if self.epochs is not None:
            self.seconds = math.inf

    def start(self) -> None:
        """Let the time begin now: once the task is there, whose file may have trained a model."""
        self.begin = self._entered = self.clock()
        self._stage = "checking the task"

    def spent(self) -> float:
        """Seconds since the beginning."""
        return self.clock() - self.begin

    def left(self) -> float:
        """Seconds until the last comparison has to begin; negative once that time is past."""
        return self.seconds - self.spent() - self.ending()

    def affords(self, seconds: float, share: float = 1.0) -> bool:
        """Whether something that takes so long is less than that share of what is left."""
        return seconds < share * self.left()

    def require_time(self) -> None:
        """Raise NoTimeError once nothing is left."""
        if self.left() < 0:
            raise NoTimeError

    def enter(self, stage: str) -> None:
        """Count the time from now on for that stage."""
        now = self.clock()
        self.took[self._stage] = self.took.get(self._stage, 0.0) + now - self._entered
        self._stage, self._entered = stage, now

    def overrun(self) -> str:
        """One line if the fit took much longer than allowed, with what took longest; else empty."""
        if self.spent() <= LATE * self.seconds:
            return ""
        self.enter("")
        longest = sorted(self.took, key=lambda stage: -self.took[stage])[:LONGEST]
        parts = ", ".join(f"{stage} ({self.took[stage] / 60:.1f})" for stage in longest)
        return (
            f"the fit took {self.spent() / 60:.1f} minutes instead of {self.seconds / 60:g}; its "
            f"longest stages were {parts}"
        )
