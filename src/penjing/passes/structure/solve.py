"""Solve: one layer's weights by least squares, for the outputs that it should have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx

from penjing.arith.least_squares import NormalEquations
from penjing.contract import LeftAlone
from penjing.network import Network
from penjing.network.analysis.activation_cache import ActivationCache
from penjing.network.analysis.held import STAY_EQUAL, held
from penjing.network.analysis.lineage import Indices
from penjing.network.analysis.rows import (
    READ_AS_ROWS,
    sampled,
    why_not_solved,
)
from penjing.network.graph.arguments import argument
from penjing.network.graph.batch_norm import BatchNorm, batch_norm_of
from penjing.network.graph.layers import Layer

aten = torch.ops.aten
SUMS = {aten.add.Tensor, aten.add_.Tensor}
MOST_PRODUCTS = 4e11  # multiplications to sum up one system: half a minute; beyond it, fewer rows


def solvable(network: Network) -> tuple[list[fx.Node], list[LeftAlone]]:
    """The convolutions and linear layers that own their weight, and those that can't be solved."""
    layers, left = [], []
    marks = held(network)
    for node in network.calls():
        if "conv" not in str(node.target) and node.target not in READ_AS_ROWS:
            continue
        weight = node.args[1]
        unknowns = 0
        if isinstance(weight, fx.Node) and weight.op == "get_attr" and len(weight.users) == 1:
            unknowns = network.tensor(str(weight.target))[0].numel()
        why = why_not_solved(node, unknowns)
        if "factor_of" in node.meta:
            why = "it is a factor of a layer, and the original has no such output"
        if not why and not unknowns:
            why = "its weight is computed, or shared with another layer"
        if not why and marks.get(Layer(node).weight_name) == "values":
            why = STAY_EQUAL
        if why:
            left.append(LeftAlone(str(node.meta["layer"]), why))
        else:
            layers.append(node)
    return layers, left


@dataclass
class Solve:
    """The linear systems of one layer: one for each group of the convolution."""

    network: Network
    node: fx.Node
    left: Indices
    teacher: ActivationCache
    student: ActivationCache
    draw: torch.Generator

    def run(self, rows: int, ridge: float) -> None:
        """Solve and write the layer's tensors; see `Compensate` for `rows` and `ridge`."""
        weight, bias = self._tensor(1), self._tensor(2)
        assert weight is not None
        norm = _sole_user(self.node, {aten.batch_norm.default})
        batch_norm = None if norm is None else batch_norm_of(self.network, norm)
        norm = norm if batch_norm is not None else None
        groups, unknowns = Layer(self.node).groups, weight[0].numel()
        systems = [NormalEquations(unknowns, len(weight) // groups) for _ in range(groups)]
        rows = max(2 * unknowns, min(rows, int(MOST_PRODUCTS / unknowns**2 / groups)))
        per_batch = max(1, rows // len(self.student.batches))
        for x, y in zip(self.student.value(self._input()), self._targets(norm), strict=True):
            columns, outputs = sampled(self.node, weight, x, y, per_batch, self.draw)
            for system, part, wanted in zip(
                systems, columns.chunk(groups, 1), outputs.chunk(groups, 1), strict=True
            ):
                system.add(part, wanted)
        if batch_norm is not None:
            if batch_norm.gamma is not None and batch_norm.beta is not None:
                self._write_through(batch_norm, systems, ridge)
            return
        solved = [
            system.solve(ridge, bias is not None, support)
            for system, support in zip(systems, self._supports(len(systems)), strict=True)
        ]
        weight.copy_(torch.cat([matrix for matrix, _ in solved]).view_as(weight))
        if bias is not None:
            bias.copy_(torch.cat([offset for _, offset in solved]))

    def _targets(self, norm: fx.Node | None) -> list[Tensor]:
        """The outputs that the layer, with its batch norm, should have.

        They are the original's outputs. If a shortcut is added, they are what the shortcut lacks
        to give the original's sum.
        """
        end = norm or self.node
        total = _sole_user(end, SUMS)
        dim = -1 if self.node.target is aten.linear.default else 1
        keep = torch.tensor(self.left[str(cast(fx.Node, self.node.args[1]).target)][0])
        if total is not None and argument(total, "alpha", 1) == 1:
            other = next((operand for operand in total.args if operand is not end), None)
            if isinstance(other, fx.Node) and not self.student.depends(other, self.node):
                sums = self.teacher.value_of(total.name)
                shortcuts = self.student.value(other)
                if all(a.dim() == b.dim() for a, b in zip(sums, shortcuts, strict=True)):
                    return [
                        value.index_select(dim, keep) - shortcut
                        for value, shortcut in zip(sums, shortcuts, strict=True)
                    ]
        return [value.index_select(dim, keep) for value in self.teacher.value_of(end.name)]

    def _write_through(self, norm: BatchNorm, systems: list[NormalEquations], ridge: float) -> None:
        """Write the solution of a layer in front of a batch norm.

        The weight keeps its scale, the norm gets the new statistics, and the norm's own weight and
        bias then give the solved function.
        """
        weight, bias = self._tensor(1), self._tensor(2)
        assert weight is not None
        assert norm.gamma is not None
        assert norm.beta is not None
        gain = norm.gain
        alive = gain.abs() > 1e-4 * gain.abs().max()
        scales = torch.where(alive, gain, torch.inf).chunk(len(systems))
        weights, offsets, means, spreads = [], [], [], []
        supports = self._supports(len(systems))
        for system, scale, support in zip(systems, scales, supports, strict=True):
            solved, offset = system.solve(ridge, support=support)
            new = solved / scale[:, None]
            covariance, _ = system.covariances()
            weights.append(new)
            offsets.append(offset)
            means.append(new @ system.x / max(system.rows, 1))
            spreads.append(((new @ covariance) * new).sum(1).clamp_min(0.0))
        mean, spread = torch.cat(means), torch.cat(spreads)
        shift = torch.cat(offsets) + gain * mean
        weight.copy_(torch.cat(weights).view_as(weight))
        norm.mean.copy_(mean if bias is None else mean + bias.double())
        norm.variance.copy_(spread)
        norm.gamma.copy_(gain * (spread + norm.epsilon).sqrt())
        norm.beta.copy_(shift)

    def _supports(self, groups: int) -> Sequence[Tensor | None]:
        """For each group, where its weights may differ from zero; None for everywhere."""
        name = Layer(self.node).weight_name
        if name not in held(self.network):
            return [None] * groups
        return (self.network.tensor(name) != 0).flatten(1).cpu().chunk(groups)

    def _input(self) -> fx.Node:
        return cast(fx.Node, self.node.args[0])

    def _tensor(self, position: int) -> Tensor | None:
        if len(self.node.args) <= position or self.node.args[position] is None:
            return None
        return self.network.tensor(str(cast(fx.Node, self.node.args[position]).target))


def _sole_user(node: fx.Node, targets: set[Any]) -> fx.Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].target in targets else None
