"""Allocation: how much of each axis goes, so that a budget is kept and least importance is lost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from penjing.measure.cost_model import CostModel


class _Step(NamedTuple):
    """Importance lost (or regained) for each unit of cost saved (or spent), and where it leads."""

    rate: float
    to: int


class Allocation:
    """A choice of widths, made by greedy steps from the uncut network down.

    Each step is the one that loses least importance for what it saves at the widths as they are
    by then: a layer's cost is a product, so what a channel saves falls as its neighbours shrink.
    A last step that overshoots is made up for by `fill`.

    Where axes share no layer, the cost of each is linear and its loss convex, greedy steps are
    optimal but for the last one (Fox, "Discrete Optimization Via Marginal Analysis", 1966);
    elsewhere they are a good choice, not the best.

    Attributes:
        cost_model: what any widths cost.
        allowed: the counts that each axis may have, from its size down.
        lost: how much importance each of those counts loses, growing.
        counts: the widths as they are now, of all axes.
        cost: what they cost.
    """

    def __init__(
        self,
        cost_model: CostModel,
        allowed: Mapping[str, Sequence[int]],
        lost: Mapping[str, Sequence[float]],
    ) -> None:
        self.cost_model, self.allowed, self.lost = cost_model, allowed, lost
        self.counts = dict(cost_model.sizes)
        self.cost = cost_model.total({})
        self._at = dict.fromkeys(allowed, 0)

    def cut(self, most: float) -> bool:
        """Steps down until the cost is `most` or less; False if it can't be reached."""
        best = {name: self._down(name) for name in self.allowed}
        while self.cost > most:
            steps = {name: step for name, step in best.items() if step}
            if not steps:
                return False
            name = min(steps, key=steps.__getitem__)
            self._take(name, steps[name].to)
            for other in self.cost_model.neighbours[name] & best.keys():
                best[other] = self._down(other)
        return True

    def fill(self, most: float) -> None:
        """Give back what fits, best first: then no axis can have its next larger count."""
        while steps := {
            name: step for name in self.allowed if (step := self._up(name, most)) is not None
        }:
            name = max(steps, key=steps.__getitem__)
            self._take(name, steps[name].to)

    def _down(self, name: str) -> _Step | None:
        """The best step down of an axis, beyond counts that save nothing where there are such."""
        start = self._at[name]
        end = len(self.allowed[name]) if self.cost_model.plateaus else start + 2
        best: _Step | None = None
        for to in range(start + 1, min(end, len(self.allowed[name]))):
            saved = self._saved(name, to)
            if saved > 0:
                step = _Step((self.lost[name][to] - self.lost[name][start]) / saved, to)
                best = step if best is None else min(best, step)
        return best

    def _up(self, name: str, most: float) -> _Step | None:
        """The best step up of an axis that the budget allows."""
        start = self._at[name]
        end = -1 if self.cost_model.plateaus else start - 2
        best: _Step | None = None
        for to in range(start - 1, max(end, -1), -1):
            spent = -self._saved(name, to)
            if self.cost + spent <= most:
                gain = self.lost[name][start] - self.lost[name][to]
                step = _Step(gain / spent if spent > 0 else math.inf, to)
                best = step if best is None else max(best, step)
        return best

    def _saved(self, name: str, to: int) -> float:
        return self.cost_model.saved(self.counts, name, self.allowed[name][to])

    def _take(self, name: str, to: int) -> None:
        self._at[name] = to
        self.counts[name] = self.allowed[name][to]
        self.cost = self.cost_model.total(self.counts)
