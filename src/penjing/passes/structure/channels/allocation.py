"""Allocation: divide a budget among the axes so that the least importance is lost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from penjing.measure.cost_model import CostModel


class _Step(NamedTuple):
    """One step of an axis: the importance lost per unit of cost saved, and the step's end."""

    rate: float
    to: int


class Allocation:
    """A choice of widths, found by greedy steps that start at the unpruned network.

    Each step loses the least importance for what it saves at the current widths. The cost of a
    layer is a product of widths, so a channel saves less once its neighbours have shrunk. If the
    last step saves more than needed, `fill` gives the rest back.

    Greedy steps are optimal, except for the last one, if no two axes share a layer, every cost is
    linear and every loss is convex (B. Fox, "Discrete Optimization Via Marginal Analysis", 1966).
    In other cases the result is good but may not be the best.

    Attributes:
        cost_model: the cost of any choice of widths.
        allowed: by axis, the sizes that it may take, the largest first.
        lost: by axis, the importance that each of these sizes loses, in growing order.
        counts: the current widths of all axes.
        cost: the cost of the current widths.
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
        """Step down until the cost is `most` or less; False if that can't be reached."""
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
        """Enlarge axes again, the best first, until no axis can take its next larger size."""
        while steps := {
            name: step for name in self.allowed if (step := self._up(name, most)) is not None
        }:
            name = max(steps, key=steps.__getitem__)
            self._take(name, steps[name].to)

    def _down(self, name: str) -> _Step | None:
        """The best step down of an axis, passing over sizes that save nothing."""
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
        """The best step up of an axis within the budget."""
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
