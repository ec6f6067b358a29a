"""BlockLosses: the loss that cutting a block adds, once the layers behind it are solved again."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from penjing.errors import InputError
from penjing.measure.costs import MOST_BYTES
from penjing.network import Network
from penjing.network.analysis.activation_cache import ActivationCache
from penjing.network.analysis.blocks import Block
from penjing.network.analysis.lineage import all_indices
from penjing.network.analysis.segments import bottlenecks
from penjing.network.edits.bypass import cut_out
from penjing.network.edits.fuse import fuse
from penjing.network.edits.leave_out import leave_out
from penjing.network.graph.shapes import fake_values
from penjing.passes.structure.solve import Solve, solvable
from penjing.tasks.data import first
from penjing.tasks.task import Task

RIDGE = 1e-4


class BlockLosses:
    """Cuts blocks out of copies of a network, one after the other, and measures the loss of each.

    After a cut, the layers up to the next value on which alone the rest of the network depends are
    solved by least squares, so that their outputs come close to those of the uncut network. Values
    in front of the cut are computed once for all blocks.

    Attributes:
        student: the network with all blocks cut that were accepted so far.
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
        self._cache = self._teacher
        self.student = network
        self._instead: dict[str, str] = {}
        self._loss: float | None = None

    @property
    def loss(self) -> float:
        """The loss on the samples, of the network as it is after all cuts that were accepted."""
        if self._loss is None:
            self._loss = self._loss_of(self._cache)
        return self._loss

    def added(self, block: Block, by_map: bool) -> float:
        """The loss that cutting the block adds to the present one."""
        return self._loss_of(self._without(block, by_map)) - self.loss

    def accept(self, block: Block, by_map: bool) -> None:
        """Cut the block out for good."""
        self._cache = self._without(block, by_map)
        self.student = self._cache.network
        self._loss = None
        if block.kind not in ("part", "activation") and not by_map:
            self._instead[block.end] = block.start

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

    def _without(self, block: Block, by_map: bool) -> ActivationCache:
        """The activations of a copy without the block, its next layers solved again."""
        student = copy.deepcopy(self.student)
        end = self._place[block.end]
        start = block.start
        while start in self._instead:  # it went with a block in front of this one
            start = self._instead[start]
        block = replace(block, start=start)
        cut_block(student, block, by_map)
        cache = ActivationCache(student, self._inputs)
        for node, values in self._cache.known.items():
            if node.name in cache.nodes and self._place.get(node.name, end) < end:
                cache.known[cache.nodes[node.name]] = values
        whole = all_indices(student)
        draw = torch.Generator().manual_seed(0)
        for layer in self._next(solvable(student)[0], end):
            with torch.no_grad():
                Solve(student, layer, whole, self._teacher, cache, draw).run(self._rows, RIDGE)
            cache.changed(layer)
        self._teacher.keep(self._kept)
        return cache

    def _next(self, layers: list[fx.Node], end: int) -> list[fx.Node]:
        """The layers from a place on, up to the next value that alone is read behind them."""
        behind = [layer for layer in layers if self._place[layer.name] >= end]
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
                total, count = total + loss * len(targets), count + len(targets)
        cache.keep(self._kept)
        if not total == total:
            raise InputError(
                "the loss on the training samples is NaN; check the labels and the loss"
            )
        return total / count


def cut_block(network: Network, block: Block, by_map: bool) -> None:
    """Cut a block out of a network, in place."""
    if block.kind == "part":
        leave_out(network, [block.end])
        return
    if block.kind != "activation":
        cut_out(network, {block.end: block.start}, [block.end] if by_map else [])
        return
    nodes = {node.name: node for node in network.graph.nodes}
    cut_out(network, {name: nodes[name].all_input_nodes[0].name for name in block.functions}, [])
    fuse(network, {block.end: block.start}, True)


def _in_memory(network: Network, kept: set[str], samples: int) -> int:
    """The number of samples whose kept values fit into memory, for two networks."""
    leaves = torch.utils._pytree.tree_leaves(network.example)
    each = sum(
        _bytes(value) for node, value in fake_values(network).items() if node.name in kept
    ) // len(leaves[0])
    return max(2, min(samples, MOST_BYTES // max(1, 2 * each)))


def _bytes(value: Any) -> int:
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0
