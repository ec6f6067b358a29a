"""Progress: how much of a fit is done, from 0 to 1, and never less than before."""

from __future__ import annotations

from dataclasses import dataclass

from penjing.search.schedule import Schedule

SEARCH = 0.9
"""The share that is done once the last comparison begins."""
UNKNOWN = 8
"""Rounds that are assumed before the strategy has said how many it expects."""


@dataclass
class Progress:
    """The share of a fit that is done.

    By the clock it is the time spent of the time planned, or more where the rounds that are never
    left out will take longer. Without a clock it is the rounds done of those expected. A round is
    what a strategy proposes at once; measuring the original counts as the first.

    Attributes:
        done: the share at the last call.
    """

    schedule: Schedule
    done: float = 0.0

    def in_search(self, finished: float, rounds: int, must: int) -> float:
        """The share while candidates are tried.

        Args:
            finished: rounds, with the part of the current one.
            rounds: that are expected in all.
            must: of these, how many are never left out.
        """
        if finished < 1:
            rounds = must = UNKNOWN
        if self.schedule.epochs is not None:
            return self._at_least(SEARCH * finished / max(rounds, finished + 1))
        spent = max(self.schedule.spent(), 1e-9)
        a_round = spent / max(finished, 1.0)
        ahead = max(self.schedule.left(), a_round * max(must - finished, 1.0))
        return self._at_least(SEARCH * spent / (spent + ahead))

    def at_end(self, step: int, steps: int) -> float:
        """The share during the last comparison and the test: so many of these steps are done."""
        return self._at_least(SEARCH + (1 - SEARCH) * step / (steps + 1))

    def _at_least(self, share: float) -> float:
        self.done = max(self.done, share)
        return self.done
