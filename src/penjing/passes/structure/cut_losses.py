"""CutLosses: the loss that a cut adds, once the layers behind it are solved again."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx

from penjing.errors import InputError
from penjing.measure.costs import MOST_BYTES
from penjing.measure.judged import Judged, judge_answers
from penjing.network import Axes, Group, Network, find_axes
from penjing.network.analysis.activation_cache import ActivationCache
from penjing.network.analysis.blocks import Block
from penjing.network.analysis.lineage import Indices, all_indices, indices_after, indices_of
from penjing.network.analysis.segments import bottlenecks
from penjing.network.edits.factorize import factor_nodes, factorize, misfit_of
from penjing.network.edits.shrink import shrink
from penjing.network.graph.layers import Layer
from penjing.network.graph.shapes import fake_values
from penjing.passes.structure.blocks.cut import cut_block
from penjing.passes.structure.ranks.fit import fit
from penjing.passes.structure.solve import Solve, solvable
from penjing.tasks.data import first
from penjing.tasks.targets import samples_in
from penjing.tasks.task import Task

RIDGE = 1e-4


@dataclass(frozen=True)
class Narrowing:
    """An axis that becomes narrower.

    Attributes:
        axis: its name in the uncut network; once a block has gone it may be called otherwise.
        keep: which of its present indices stay.
        size: how many there are.
    """

    axis: str
    keep: tuple[int, ...]
    size: int


@dataclass(frozen=True)
class Factoring:
    """A layer that becomes two factors.

    Attributes:
        node: the name of its node.
        scheme: see `penjing.passes.Factorize`.
        rank: of both factors.
    """

    node: str
    scheme: str
    rank: int


Cut = Block | Narrowing | Factoring


class CutLosses:
    """Cuts copies of a network, one cut after the other, and measures the loss of each.

    A cut takes a block out, or indices of an axis, or the rank of a layer. After it, the layers
    behind it, up to the next value on which alone the rest of the network depends, are solved by
    least squares, so that their outputs come close to those of the uncut network. Values in front
    of the cut are computed once for all cuts.

    Attributes:
        student: the network with all cuts that were accepted so far.
    """

    def __init__(
        self, network: Network, task: Task, blocks: list[Block], samples: int, rows: int
    ) -> None:
        stops = bottlenecks(network)
        self._kept = {block.start for block in blocks} | {stop.name for stop in stops}
        batches = first(task.train, _in_memory(network, self._kept, samples))
        self._inputs = [inputs for inputs, _ in batches]
        self._targets = [targets for _, targets in batches]
        self._task, self._rows = task, rows
        self._place = {node.name: place for place, node in enumerate(network.graph.nodes)}
        self._stops = [self._place[stop.name] for stop in stops]
        self._teacher = ActivationCache(network, self._inputs)
        self._teacher.keep(self._kept)
        self._now = _Tried(self._teacher, all_indices(network))
        self._instead: dict[str, str] = {}
        self._loss: float | None = None

    @cached_property
    def _sites(self) -> dict[str, frozenset[tuple[str, int]]]:
        """By axis of the uncut network, the dimensions of tensors that it has a part in."""
        axes = find_axes(self._teacher.network)
        return {name: _dimensions(group) for name, group in axes.items()}

    @property
    def student(self) -> Network:
        """See the class."""
        return self._now.cache.network

    @property
    def loss(self) -> float:
        """The loss on the samples, of the network as it is after all cuts that were accepted."""
        if self._loss is None:
            self._loss = self._loss_of(self._now.cache)
        return self._loss

    @property
    def judged(self) -> Judged:
        """The loss and the scores on the samples, likewise."""
        with torch.no_grad():
            answers = zip(self._now.cache.outputs(), self._targets, strict=True)
            judged = judge_answers(self._task, answers)
        self._now.cache.keep(self._kept)
        self._loss = judged.loss
        return judged

    def added(self, cut: Cut, by_map: bool = False) -> float:
        """The loss that a cut adds to the present one.

        Args:
            cut: what to cut.
            by_map: whether a linear map replaces a block.
        """
        return self._loss_of(self._cut(cut, by_map).cache) - self.loss

    def tried(self, cut: Cut) -> tuple[float, Network]:
        """The loss that a cut adds to the present one, and the network after it.

        Raises:
            InputError: the axis or the layer has gone, or the rank is too large.
        """
        cache = self._cut(cut, False).cache
        return self._loss_of(cache) - self.loss, cache.network

    def accept(self, cut: Cut, by_map: bool = False) -> None:
        """Make a cut for good; see `added` for the arguments."""
        self._now = self._cut(cut, by_map)
        self._loss = None
        if isinstance(cut, Block) and cut.kind not in ("part", "activation") and not by_map:
            self._instead[cut.end] = cut.start

    def unlikeness(self, block: Block) -> float | None:
        """1 - cos(value before, value after), averaged over samples; None if the shapes differ."""
        if not block.alike:
            return None
        pairs = zip(
            self._teacher.value_of(block.start), self._teacher.value_of(block.end), strict=True
        )
        cosines = [
            torch.cosine_similarity(before.reshape(len(before), -1), after.reshape(len(after), -1))
            for before, after in pairs
        ]
        self._teacher.keep(self._kept)
        return 1 - float(torch.cat(cosines).mean())

    def _cut(self, cut: Cut, by_map: bool) -> _Tried:
        """The activations of a copy with one more cut, its next layers solved again."""
        student = copy.deepcopy(self.student)
        if isinstance(cut, Block):
            return self._without(student, cut, by_map)
        if isinstance(cut, Narrowing):
            return self._narrower(student, cut)
        return self._factored(student, cut)

    def _without(self, student: Network, block: Block, by_map: bool) -> _Tried:
        end = self._place[block.end]
        start = block.start
        while start in self._instead:  # it went with a block in front of this one
            start = self._instead[start]
        left = self._now.left
        if block.kind == "part":
            edit = {"edit": "leave_out", "values": [block.end]}
            left = indices_after(find_axes(student), edit, left)
        cut_block(student, replace(block, start=start), by_map)
        return self._solved(student, end, end, left)

    def _narrower(self, student: Network, cut: Narrowing) -> _Tried:
        axes = find_axes(student)
        group = self._now_called(cut, axes)
        keep = {group.name: list(cut.keep)}
        left = indices_after(axes, {"edit": "shrink", "axes": keep}, self._now.left)
        sites = {site.tensor for site in group.sites}
        places = [
            self._place[node.name]
            for node in student.calls()
            if node.name in self._place
            and any(str(source.target) in sites for source in node.all_input_nodes)
        ]
        shrink(student, keep)
        return self._solved(student, min(places), max(places), left)

    def _factored(self, student: Network, cut: Factoring) -> _Tried:
        layer = next((node for node in student.calls() if node.name == cut.node), None)
        if layer is None:
            raise InputError(f"the layer {cut.node!r} has gone with a block")
        if words := misfit_of(student, layer, cut.scheme, (cut.rank,)):
            raise InputError(f"ranks of {cut.node}: {words}")
        source, place = Layer(layer).data.name, self._place[cut.node]
        factorize(student, {cut.node: {"scheme": cut.scheme, "ranks": [cut.rank]}})
        cache = self._in_front(student, place)
        nodes = factor_nodes(cache.nodes[source], cache.nodes[cut.node])
        assert nodes is not None
        with torch.no_grad():
            fit(nodes, self._now.cache, cache, False, torch.Generator().manual_seed(0))
        self._now.cache.keep(self._kept)
        return self._solved(student, place, place, self._now.left)

    def _in_front(self, student: Network, begin: int) -> ActivationCache:
        """The activations of a student, whose values in front of a place are known already."""
        cache = ActivationCache(student, self._inputs)
        for node, values in self._now.cache.known.items():
            if node.name in cache.nodes and self._place.get(node.name, begin) < begin:
                cache.known[cache.nodes[node.name]] = values
        return cache

    def _now_called(self, cut: Narrowing, axes: Axes) -> Group:
        """The axis among those that are left. One between factors wasn't in the uncut network."""
        sites = self._sites.get(cut.axis)
        able = [
            group
            for group in axes.free.values()
            if group.size == cut.size
            and (group.name == cut.axis if sites is None else _dimensions(group) <= sites)
        ]
        able = [group for group in able if group.name == cut.axis] or able
        if len(able) != 1:
            raise InputError(f"the axis {cut.axis!r} has gone with a block, or with a part of one")
        return able[0]

    def _solved(self, student: Network, begin: int, end: int, left: Indices) -> _Tried:
        """The activations of a student that was changed between two places, its layers behind the
        first one solved again."""
        cache = self._in_front(student, begin)
        left, draw = indices_of(student, left), torch.Generator().manual_seed(0)
        for layer in self._next(solvable(student)[0], begin, end):
            with torch.no_grad():
                Solve(student, layer, left, self._teacher, cache, draw).run(self._rows, RIDGE)
            cache.changed(layer)
        self._teacher.keep(self._kept)
        return _Tried(cache, left)

    def _next(self, layers: list[fx.Node], begin: int, end: int) -> list[fx.Node]:
        """The layers from a place on, up to the next value behind `end` that alone is read."""
        behind = [layer for layer in layers if self._place[layer.name] >= begin]
        for stop in self._stops:
            inside = [layer for layer in behind if self._place[layer.name] <= stop]
            if inside and stop > end:
                return inside
        return behind

    def _loss_of(self, cache: ActivationCache) -> float:
        total, count = 0.0, 0
        with torch.no_grad():
            for outputs, targets in zip(cache.outputs(), self._targets, strict=True):
                loss = float(self._task.loss(outputs, targets))
                some = samples_in(targets)
                total, count = total + loss * some, count + some
        cache.keep(self._kept)
        if not math.isfinite(total):
            raise InputError(
                f"the loss on the training samples is {total}; check the labels and the loss"
            )
        return total / count


@dataclass(frozen=True)
class _Tried:
    """The activations of a network that was cut, and the original indices that are left in it."""

    cache: ActivationCache
    left: Indices


def _dimensions(group: Group) -> frozenset[tuple[str, int]]:
    """The dimensions of tensors that an axis has a part in."""
    return frozenset((site.tensor, site.dim) for site in group.sites)


def _in_memory(network: Network, kept: set[str], samples: int) -> int:
    """The number of samples whose kept values fit into memory, for two networks."""
    leaves = torch.utils._pytree.tree_leaves(network.example)
    each = sum(
        _bytes(value) for node, value in fake_values(network).items() if node.name in kept
    ) // len(leaves[0])
    return max(2, min(samples, MOST_BYTES // max(1, 2 * each)))


def _bytes(value: Any) -> int:
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0
