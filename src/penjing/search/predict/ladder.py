"""Ladder: networks that cost less and less, each with the least loss that its parts promise."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from penjing.contract import Json
from penjing.errors import InputError
from penjing.measure.costs import totals
from penjing.network import Network
from penjing.passes.structure.cut_losses import CutLosses
from penjing.search.predict.cost import Cost
from penjing.search.predict.parts import Change, Parts
from penjing.search.predict.program import least_lost
from penjing.search.predict.shape import Shape
from penjing.tasks.task import Task

SHARE = 0.93
"""Each step costs this share of the one before."""
LEAST = 0.25
"""The share of the uncut network's cost below which no step goes."""
ROUNDS = 6
"""How often a step's choice is made anew with losses that were just measured."""
ROWS = 10_000
LEAST_LOST = 0.02
"""What a change that saves all of the cost loses at least, of what a change loses in the middle; so
that none is made for nothing."""
LISTED = 0.5
"""The share that is done once each change was measured, and before the first step; see `steps`."""
Say = Callable[[str, float], None]


@dataclass(frozen=True)
class Step:
    """A network of the ladder.

    Attributes:
        shape: what is left of the network.
        share: what it costs of the original, predicted; see `penjing.search.predict.cost.Cost`.
        macs: its multiply-accumulates, of the original's.
        loss: what the network loses on training samples, measured after least squares.
        expected: the same, as the sum over its changes since the last step.
        lost: what it loses by the metric, in its units, on the same samples.
    """

    shape: Shape
    share: float
    macs: float
    loss: float
    expected: float
    lost: float

    def to_json(self) -> dict[str, Json]:
        """Plain data, the inverse of `from_json`."""
        figures = {name: getattr(self, name) for name in _FIGURES}
        return {"shape": self.shape.to_json(), **figures}

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Step:
        """Read what `to_json` wrote."""
        return cls(Shape.from_json(data["shape"]), *(data[name] for name in _FIGURES))


_FIGURES = ("share", "macs", "loss", "expected", "lost")


@dataclass(frozen=True)
class Effect:
    """What a change does to the network as it was then.

    Attributes:
        lost: the loss that it adds, after the layers behind it were solved again.
        saved: what it saves of the original's cost.
    """

    lost: float
    saved: float


class Ladder:
    """Goes down step by step. On each, the changes are chosen that lose least for what the
    step has to save, by integer programming; their losses are measured, and the choice is made
    again until all that is chosen was measured in the present network."""

    def __init__(
        self, network: Network, task: Task, cost: Cost, parts: Parts, samples: int
    ) -> None:
        self.parts = parts
        blocks = list(parts.blocks.values())
        self.losses = CutLosses(network, task, blocks, samples, ROWS)
        self.cost = cost
        self.shape = Shape()
        self.share = self.whole = cost.of(network)
        self.macs = max(totals(network)[0], 1)
        self.least = 0.0
        self.effects: dict[Change, Effect] = {}
        self.fresh: set[Change] = set()

    def steps(self, say: Say) -> Iterator[Step]:
        """All steps, the costliest first.

        Args:
            say: called before each loss that is measured, with a line and the share that is done.
        """
        begun = self.losses.judged
        changes = self.parts.changes(self.shape)
        for number, change in enumerate(changes):
            say(f"what {change.name} costs and saves", LISTED * number / len(changes))
            self._measure(change)
        lost = [effect.lost for effect in self.effects.values()]
        self.least = LEAST_LOST * max(statistics.median(lost or [0.0]), 0.0)
        total = math.log(LEAST) / math.log(SHARE)
        for number in itertools.count():
            if self.share * SHARE < LEAST * self.whole:
                return
            share = LISTED + (1 - LISTED) * min(1.0, number / total)
            chosen = self._chosen(say, share)
            if not chosen:
                return
            expected = sum(self.effects[change].lost for change in chosen)
            before = self.losses.loss
            for change in sorted(chosen, key=lambda change: change.turn):
                self.losses.accept(self.parts.cut(change, self.shape))
                self.shape = self.parts.after(self.shape, change)
            self.share = self.cost.of(self.losses.student)
            self.fresh = set()
            now, macs = self.losses.judged, totals(self.losses.student)[0] / self.macs
            yield Step(
                self.shape,
                self.share,
                macs,
                loss=now.loss - begun.loss,
                expected=before - begun.loss + expected,
                lost=begun.scores.units_lost(now.scores),
            )

    def _measure(self, change: Change) -> None:
        self.fresh.add(change)
        try:
            lost, student = self.losses.tried(self.parts.cut(change, self.shape))
        except InputError:  # it has gone, or is too small, or the loss isn't finite without it
            self.effects[change] = Effect(0.0, 0.0)
            return
        saved = self.share - self.cost.of(student)
        self.effects[change] = Effect(lost, saved)

    def _chosen(self, say: Say, share: float) -> list[Change]:
        """The changes that lose least for what the next step saves; none if they can't save it."""
        for _ in range(ROUNDS):
            changes = [c for c in self.parts.changes(self.shape) if self.effects[c].saved > 0]
            best = least_lost(
                [self.effects[change].saved for change in changes],
                [self._price(self.effects[change]) for change in changes],
                self.parts.apart(changes),
                (1 - SHARE) * self.share,
            )
            chosen = [changes[index] for index in best or ()]
            stale = [change for change in chosen if change not in self.fresh]
            if not stale:
                return chosen
            for change in stale:
                say(f"what {change.name} costs and saves now", share)
                self._measure(change)
        return [change for change in chosen if self.effects[change].saved > 0]

    def _price(self, effect: Effect) -> float:
        """What a change loses, and at least a little for what it takes away."""
        return max(effect.lost, 0.0) + self.least * effect.saved / self.whole
