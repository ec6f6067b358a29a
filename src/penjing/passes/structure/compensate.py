"""Compensate: re-solve the layers of a pruned network so that its outputs stay close."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, fx

from penjing.arith.least_squares import NormalEquations
from penjing.contract import LeftAlone, Plan
from penjing.errors import InputError
from penjing.network import Network, capture
from penjing.network.analysis.activation_cache import ActivationCache
from penjing.network.analysis.held import STAY_EQUAL, held
from penjing.network.analysis.lineage import Indices, surviving
from penjing.network.analysis.rows import (
    READ_AS_ROWS,
    sampled,
    why_not_solved,
)
from penjing.network.graph.arguments import argument
from penjing.network.graph.batch_norm import BatchNorm, batch_norm_of
from penjing.network.graph.layers import Layer
from penjing.passes.conditions import Condition
from penjing.passes.counted import counted
from penjing.passes.in_turn import InTurn, Work
from penjing.tasks.task import Task

aten = torch.ops.aten
SUMS = {aten.add.Tensor, aten.add_.Tensor}
MOST_PRODUCTS = 4e11  # multiplications to sum up one system: half a minute; beyond it, fewer rows


@dataclass(frozen=True)
class Compensate(InTurn):
    """Re-solve convolutions and linear layers by least squares, without labels.

    The pass goes through the layers in the order of the graph. Each layer gets the weights W and
    the offset b that bring its output closest to the original network's output y, on the inputs x
    that the layer receives now:

        min over W, b of mean |y - W x - b|^2 + ridge v |W|^2     (v is the mean variance of x)

    x_RK and y_RO hold R sampled positions; a convolution is unfolded into its K = C k k window
    values. A layer without a bias and without a batch norm has b = 0. If a batch norm follows the
    layer, y is the output of that norm. If a residual sum follows, y is the sum less the shortcut,
    so the layer also compensates errors of earlier layers. The statistics of batch norms are set
    to those of the new outputs. Weights that `Sparsify` has set to zero stay zero: each output is
    solved on the inputs that it still has.

    The pass pays after `PruneChannels`, `Merge` or `Sparsify`, and it needs only unlabelled
    training samples. It has to come before `Tune`, whose training it would undo.

    Attributes:
        samples: the number of training samples, 2 or more. Fewer are used if their activations
            wouldn't fit into memory.
        rows: the largest number of positions that enter one system, drawn at random; 2 or more.
            Every system gets at least two positions for each unknown, if the data has as many.
        ridge: the regularization, relative to the mean variance of the inputs; above 0.

    Raises:
        InputError: an option is out of range, or the calibration data has another shape.

    Source: Y. He, X. Zhang, J. Sun, "Channel Pruning for Accelerating Very Deep Neural Networks",
    2017 (least squares on the outputs, with the shortcut's error included).

    >>> import penjing, torch
    >>> from torch import nn
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    >>> data = penjing.Arrays(torch.randn(64, 8), torch.arange(64) % 4)
    >>> task = penjing.Task(model, data.x[:2], train=data, test=data)
    >>> network = penjing.capture(model, task.example)
    >>> pruned = penjing.passes.PruneChannels(0.5)(network, task)
    >>> compensate = penjing.passes.Compensate(samples=64)
    >>> print(compensate.plan(pruned, task).summary)
    re-solves 2 layers by least squares on 64 samples
    >>> solved = compensate(pruned, task)
    >>> error = lambda other: (other(data.x) - network(data.x)).square().mean().item()
    >>> error(solved) < error(pruned)
    True
    """

    samples: int = 512
    rows: int = 50_000
    ridge: float = 1e-4

    requires: ClassVar[frozenset[Condition]] = frozenset(
        {Condition.CALIBRATION, Condition.FLOAT, Condition.REDUCED}
    )
    provides: ClassVar[frozenset[Condition]] = frozenset({Condition.SOLVED})
    doing: ClassVar[str] = "solving"

    def __post_init__(self) -> None:
        if self.samples < 2 or self.rows < 2:
            raise InputError(
                f"samples and rows must be 2 or more; found {self.samples} and {self.rows}"
            )
        if not self.ridge > 0:
            raise InputError(f"ridge must be positive; found {self.ridge}")

    def decide(self, network: Network, task: Task) -> Plan:
        """List the layers that can be solved; the graph itself stays as it is."""
        layers, left = solvable(network)
        return self._plan(
            summary=f"re-solves {counted(len(layers), 'layer')} by least squares "
            f"{self.on_samples(network)}",
            left_alone=left,
            parts=[(node.name,) for node in layers],
        )

    def teacher(self, student: Network, task: Task) -> Network:
        """The original network, before pruning."""
        return capture(task.model, task.example)

    def begin(self, network: Network, student: ActivationCache, teacher: ActivationCache) -> Work:
        """Solve one layer for the original's outputs, given the inputs that it has now."""
        left = surviving(teacher.network, network.history)
        draw = torch.Generator().manual_seed(0)

        def work(layer: fx.Node) -> fx.Node:
            with torch.no_grad():
                solve = Solve(student.network, layer, left, teacher, student, draw)
                solve.run(self.rows, self.ridge)
            return layer

        return work


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
