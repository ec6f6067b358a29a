"""Ladder: networks of less and less time, each with the least loss that its parts promise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch

from penjing.contract import Json
from penjing.errors import InputError
from penjing.network import Axes, Network, find_axes
from penjing.network.analysis.blocks import find_blocks
from penjing.network.graph.layers import layers_of
from penjing.passes.structure.channels.importance import importances
from penjing.passes.structure.channels.widths import Widths
from penjing.passes.structure.cut_losses import Cut, CutLosses, Narrowing
from penjing.search.predict.shape import IMPORTANCE, Shape
from penjing.search.predict.solve import least_lost
from penjing.search.predict.times import TimeModel, features
from penjing.tasks.task import Task

LEVELS = (0.75, 0.5, 0.25)
"""The shares of an axis that may be left."""
SHARE = 0.93
"""Each step takes this share of the time of the one before."""
LEAST = 0.25
"""The share of the first time below which no step goes."""
WIDE = 0.25
"""An axis that touches a larger share of the layers isn't cut: all of them would change."""
FEW = 4
"""Unless it touches no more layers than this."""
ROUNDS = 6
"""How often a step's choice is made anew with losses that were just measured."""
ROWS = 10_000
Say = Callable[[str, float], None]


@dataclass(frozen=True)
class Change:
    """A block that goes (0 are left), or an axis of which so many indices are left."""

    name: str
    left: int = 0


@dataclass(frozen=True)
class Step:
    """A network of the ladder.

    Attributes:
        shape: what is left of the network.
        time: predicted, of the original's.
        loss: what the network loses on training samples, measured after least squares.
        expected: the same, as the sum over its changes since the last step.
    """

    shape: Shape
    time: float
    loss: float
    expected: float

    def to_json(self) -> dict[str, Json]:
        """Plain data, the inverse of `from_json`."""
        figures = {"time": self.time, "loss": self.loss, "expected": self.expected}
        return {"shape": self.shape.to_json(), **figures}

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Step:
        """Read what `to_json` wrote."""
        return cls(Shape.from_json(data["shape"]), data["time"], data["loss"], data["expected"])


@dataclass(frozen=True)
class Effect:
    """What a change does to the network as it was then.

    Attributes:
        lost: the loss that it adds, after the layers behind it were solved again.
        saved: the time that it saves, of the original's.
    """

    lost: float
    saved: float


class Parts:
    """The parts of a network that can go: whole blocks, and indices of axes.

    Attributes:
        blocks: by name; whatever reads a block's end can read its start instead.
        layers: by axis, the names of the layers that read or write it.
        sizes: by axis that may become narrower, how wide it is.
        keep: likewise, and by number of indices left, which ones stay.
    """

    def __init__(self, network: Network, multiple: int) -> None:
        every = [block for block in find_blocks(network) if block.alike]
        names = [block.name for block in every]
        self.blocks = {block.name: block for block in every if names.count(block.name) == 1}
        axes = find_axes(network)
        self.layers = layers_by_axis(network, axes)
        most = max(FEW, WIDE * len(layers_of(network)))
        able = {
            name: group
            for name, group in axes.free.items()
            if 0 < len(self.layers[name]) <= most and not group.mixed
        }
        self.sizes = {name: group.size for name, group in able.items()}
        self.keep = {
            name: {
                count: torch.topk(scores, count).indices.sort().values.tolist()
                for count in counts_of(len(scores), multiple)
            }
            for name, scores in importances(network, able, IMPORTANCE, None).items()
        }

    def changes(self, shape: Shape) -> list[Change]:
        """What can still be changed in a network of that shape."""
        gone = {layer for name in shape.gone for layer in self.blocks[name].layers}
        blocks = [
            Change(name)
            for name, block in self.blocks.items()
            if name not in shape.gone and not gone & set(block.layers)
        ]
        if len(blocks) == 1 and len(self.blocks) > 1:
            blocks = []
        axes = [
            Change(name, count)
            for name, levels in self.keep.items()
            for count in levels
            if count < shape.widths.get(name, math.inf) and not self.layers[name] <= gone
        ]
        return [*blocks, *axes]

    def cut(self, change: Change, shape: Shape) -> Cut:
        """The cut that makes a change in a network of that shape."""
        if change.name in self.blocks and not change.left:
            return self.blocks[change.name]
        wanted = self.keep[change.name][change.left]
        before = shape.widths.get(change.name)
        if before is None:
            return Narrowing(change.name, tuple(wanted), self.sizes[change.name])
        places = {index: place for place, index in enumerate(self.keep[change.name][before])}
        return Narrowing(change.name, tuple(places[index] for index in wanted), before)

    def apart(self, changes: list[Change]) -> Iterator[tuple[int, ...]]:
        """Sets of changes of which only one can be made."""
        by_axis: dict[str, list[int]] = {}
        for place, change in enumerate(changes):
            if change.left:
                by_axis.setdefault(change.name, []).append(place)
        yield from (tuple(places) for places in by_axis.values() if len(places) > 1)
        blocks = [(place, self.blocks[c.name]) for place, c in enumerate(changes) if not c.left]
        for (place, block), (other, rival) in itertools.combinations(blocks, 2):
            if set(block.layers) & set(rival.layers) or block.end == rival.end:
                yield place, other
        for place, block in blocks:
            for name, places in by_axis.items():
                if self.layers[name] <= set(block.layers):
                    yield place, *places

    @staticmethod
    def after(shape: Shape, change: Change) -> Shape:
        """The shape after a change."""
        if not change.left:
            return replace(shape, gone=(*shape.gone, change.name))
        return replace(shape, widths={**shape.widths, change.name: change.left})

    def cleared(self, shape: Shape) -> Shape:
        """The shape without widths of axes that are gone."""
        gone = {layer for name in shape.gone for layer in self.blocks[name].layers}
        left = {
            name: count for name, count in shape.widths.items() if not self.layers[name] <= gone
        }
        return replace(shape, widths=left)


def layers_by_axis(network: Network, axes: Axes) -> dict[str, set[str]]:
    """By axis, the names of the layers that read or write it."""
    owners: dict[str, str] = {}
    for node in layers_of(network):
        for source in node.all_input_nodes:
            if source.op == "get_attr":
                owners[str(source.target)] = node.name
    return {
        name: {owners[site.tensor] for site in group.sites if site.tensor in owners}
        for name, group in axes.items()
    }


def counts_of(size: int, multiple: int) -> list[int]:
    """The numbers of indices that an axis may have instead of `size`, the largest first.

    >>> counts_of(64, 8), counts_of(16, 8), counts_of(5, 8)
    ([48, 32, 16], [8], [])
    """
    widths = Widths(0.0, multiple=multiple)
    counts = (widths.choices(size, math.ceil(level * size))[-1] for level in LEVELS)
    return sorted({count for count in counts if count < size}, reverse=True)


class Ladder:
    """Goes down step by step. On each, the changes are chosen that lose least for the time that the
    step has to save, by integer programming; their losses are measured, and the choice is made
    again until all that is chosen was measured in the present network."""

    def __init__(
        self, network: Network, task: Task, model: TimeModel, multiple: int, samples: int
    ) -> None:
        self.parts = Parts(network, multiple)
        blocks = list(self.parts.blocks.values())
        self.losses = CutLosses(network, task, blocks, samples, ROWS)
        self.model = model
        self.shape = Shape()
        self.time = model.predict(features(network))
        self.effects: dict[Change, Effect] = {}
        self.fresh: set[Change] = set()

    def steps(self, say: Say) -> Iterator[Step]:
        """All steps, the slowest first."""
        whole, begun = self.time, self.losses.loss
        changes = self.parts.changes(self.shape)
        for number, change in enumerate(changes):
            say(f"what {change.name} costs and saves", 0.5 * number / len(changes))
            self._measure(change)
        total = math.log(LEAST) / math.log(SHARE)
        for number in itertools.count():
            say(f"choosing what goes: step {number + 1}", 0.5 + 0.5 * min(1.0, number / total))
            chosen = self._chosen(SHARE * self.time)
            if chosen is None or self.time * SHARE < LEAST * whole:
                return
            expected = sum(self.effects[change].lost for change in chosen)
            before = self.losses.loss
            for change in sorted(chosen, key=lambda change: -change.left):  # axes, while they exist
                self.losses.accept(self.parts.cut(change, self.shape))
                self.shape = self.parts.after(self.shape, change)
            self.shape = self.parts.cleared(self.shape)
            self.time = self.model.predict(features(self.losses.student))
            self.fresh = set()
            loss = self.losses.loss
            yield Step(self.shape, self.time, loss - begun, before - begun + expected)

    def _measure(self, change: Change) -> None:
        self.fresh.add(change)
        try:
            lost, student = self.losses.tried(self.parts.cut(change, self.shape))
        except InputError:  # it has gone
            self.effects[change] = Effect(0.0, 0.0)
            return
        saved = self.time - self.model.predict(features(student))
        self.effects[change] = Effect(lost, saved)

    def _chosen(self, wanted: float) -> list[Change] | None:
        """The changes that lose least and bring the time down to `wanted`."""
        for _ in range(ROUNDS):
            changes = [c for c in self.parts.changes(self.shape) if self.effects[c].saved > 0]
            apart = list(self.parts.apart(changes))
            best = least_lost(
                [self.effects[change].saved for change in changes],
                [self.effects[change].lost for change in changes],
                apart,
                self.time - wanted,
            )
            if best is None:
                return None
            chosen = [changes[index] for index in best]
            stale = [change for change in chosen if change not in self.fresh]
            if not stale:
                return chosen
            for change in stale:
                self._measure(change)
        return chosen
