"""Compensate: after a cut, solve the layers anew so that they give what they gave before."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, fx
from torch.nn import functional

from penjing.arith.least_squares import NormalEquations
from penjing.contract import LeftAlone, Plan
from penjing.data import check_batch, first
from penjing.errors import InputError
from penjing.network import Network, capture
from penjing.network.lineage import Indices, surviving
from penjing.network.lockstep import Lockstep
from penjing.passes.contract import Pass, Progress
from penjing.task import Task

aten = torch.ops.aten
SUMS = {aten.add.Tensor, aten.add_.Tensor}
LARGEST_SYSTEM = 12_000  # unknowns; more than 1 GB each for the sums and their factor


@dataclass(frozen=True)
class Compensate(Pass):
    """Re-solve convolutions and linear layers by least squares, with no labels.

    In the order of the graph, each layer whose inputs are not what they were gets the weights W
    and offset b that bring its output nearest to the original's, on the inputs that it really has
    now: min |y - W x - b|^2 + ridge |W|^2. Where a batch norm follows, its output is what is
    matched; where a shortcut is then added, the sum is, so that errors from further up are made up
    for as well. Batch norms take the statistics of the new outputs and leave the function as it
    was solved.

    Attributes:
        samples: training images to look at; their labels are not used.
        rows: positions that enter each system, drawn at random, at most.
        ridge: relative to the mean variance of the inputs.

    Source: Y. He, X. Zhang, J. Sun, "Channel Pruning for Accelerating Very Deep Neural Networks",
    2017 (least squares on the outputs, with the shortcut's error included).

    Raises:
        InputError: an option is out of range; calibration data of another shape.
    """

    samples: int = 512
    rows: int = 50_000
    ridge: float = 1e-4

    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})

    def __post_init__(self) -> None:
        if self.samples < 2 or self.rows < 2:
            raise InputError(
                f"samples and rows must be 2 or more; found {self.samples} and {self.rows}"
            )
        if not self.ridge > 0:
            raise InputError(f"ridge must be positive; found {self.ridge}")

    def plan(self, network: Network, task: Task) -> Plan:
        """The layers that can be solved; the graph itself stays as it is."""
        layers, left = _layers(network)
        name = type(self).__name__
        if not any(edit["edit"] == "shrink" for plan in network.history for edit in plan.edits):
            return Plan(
                name, asdict(self), left_alone=(LeftAlone("the network", "nothing is cut"),)
            )
        summary = f"{len(layers)} layers solved anew on {self.samples} samples"
        return Plan(name, asdict(self), (), summary, tuple(left))

    def apply(
        self, network: Network, plan: Plan, task: Task, progress: Progress | None = None
    ) -> Network:
        """Solve layer after layer on a copy."""
        new = copy.deepcopy(network).eval()
        new.history = (*network.history, plan)
        if not plan.summary:
            return new
        original = capture(task.model, task.example)
        left = surviving(original, network.history)
        wanted = [tuple(one.shape[1:]) for one in torch.utils._pytree.tree_leaves(task.example)]
        batches = []
        for inputs, targets in first(task.train, self.samples):
            check_batch("calibration", inputs, targets, wanted)
            batches.append(inputs)
        teacher, student = Lockstep(original, batches), Lockstep(new, batches)
        draw = torch.Generator().manual_seed(0)
        layers, _ = _layers(new)
        with torch.no_grad():
            for number, node in enumerate(layers):
                if progress is not None:
                    progress(f"solving {node.meta['layer']}", number / len(layers))
                _Solve(new, node, left, teacher, student, draw).run(self.rows, self.ridge)
                student.changed(node)
                student.forget_before(node)
                teacher.forget_before(node)
        return new


def _layers(network: Network) -> tuple[list[fx.Node], list[LeftAlone]]:
    """Convolutions and linear layers with weights of their own, and those that can't be solved."""
    layers, left = [], []
    for node in network.calls():
        if node.target not in (aten.conv2d.default, aten.linear.default):
            continue
        weight = node.args[1]
        if not isinstance(weight, fx.Node) or weight.op != "get_attr" or len(weight.users) > 1:
            left.append(LeftAlone(str(node.meta["layer"]), "its weight is computed or shared"))
            continue
        unknowns = network.tensor(str(weight.target))[0].numel()
        if node.target is aten.conv2d.default and len(node.args) > 6 and node.args[6] != 1:
            left.append(LeftAlone(str(node.meta["layer"]), "a grouped convolution"))
        elif unknowns > LARGEST_SYSTEM:
            left.append(LeftAlone(str(node.meta["layer"]), f"{unknowns} unknowns are too many"))
        else:
            layers.append(node)
    return layers, left


@dataclass
class _Solve:
    """One layer's system."""

    network: Network
    node: fx.Node
    left: Indices
    teacher: Lockstep
    student: Lockstep
    draw: torch.Generator

    def run(self, rows: int, ridge: float) -> None:
        weight = self._tensor(1)
        assert weight is not None
        norm = _sole_user(self.node, {aten.batch_norm.default})
        norm = norm if norm is None or norm.args[3] is not None else None
        bias = self._tensor(2)
        intercept = norm is not None or bias is not None
        system = NormalEquations(weight[0].numel(), len(weight))
        each = max(1, rows // len(self.student.batches))
        for x, y in zip(self.student.value(self._input()), self._targets(norm), strict=True):
            system.add(*self._sampled(x, y, each))
        solved, offset = system.solve(ridge, intercept)
        if norm is not None:
            self._write_through(norm, system, solved, offset)
            return
        weight.copy_(solved.view_as(weight))
        if bias is not None:
            bias.copy_(offset)

    def _targets(self, norm: fx.Node | None) -> list[Tensor]:
        """What the layer (and its batch norm) should give: the original's, or, where a shortcut
        is added, what is missing to the original's sum."""
        end = norm or self.node
        total = _sole_user(end, SUMS)
        dim = 1 if self.node.target is aten.conv2d.default else -1
        keep = torch.tensor(self.left[str(cast(fx.Node, self.node.args[1]).target)][0])
        if total is not None and total.kwargs.get("alpha", 1) == 1:
            other = next((one for one in total.args if one is not end), None)
            if isinstance(other, fx.Node) and not self.student.depends(other, self.node):
                sums = self.teacher.value_of(total.name)
                shortcuts = self.student.value(other)
                if all(a.dim() == b.dim() for a, b in zip(sums, shortcuts, strict=True)):
                    return [
                        one.index_select(dim, keep) - shortcut
                        for one, shortcut in zip(sums, shortcuts, strict=True)
                    ]
        return [one.index_select(dim, keep) for one in self.teacher.value_of(end.name)]

    def _sampled(self, x: Tensor, y: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        """Rows of inputs and outputs at some positions."""
        if self.node.target is aten.linear.default:
            x, y = x.flatten(0, -2), y.flatten(0, -2)
            return _some(x, y, rows, self.draw)
        weight = self._tensor(1)
        assert weight is not None
        arguments: list[Any] = [*self.node.args, None, None, None, None][:6]
        columns = functional.unfold(
            x,
            weight.shape[2:],
            dilation=arguments[5] or 1,
            padding=arguments[4] or 0,
            stride=arguments[3] or 1,
        )
        return _some(
            columns.transpose(1, 2).flatten(0, 1), y.flatten(2).transpose(1, 2).flatten(0, 1),
            rows, self.draw,
        )  # fmt: skip

    def _write_through(
        self, norm: fx.Node, system: NormalEquations, solved: Tensor, offset: Tensor
    ) -> None:
        """Write the solution before a batch norm: the layer's weight keeps its scale, the norm
        takes the new statistics, and its weight and bias make the solved function of it."""
        weight = self._tensor(1)
        assert weight is not None
        gamma, beta, mean, variance = (
            None if one is None else self.network.tensor(str(cast(fx.Node, one).target))
            for one in norm.args[1:5]
        )
        assert mean is not None
        assert variance is not None
        if gamma is None or beta is None:
            return
        epsilon = float(cast(float, norm.args[7]))
        scale = gamma.double() / (variance.double() + epsilon).sqrt()
        alive = scale.abs() > 1e-4 * scale.abs().max()
        new = torch.where(alive[:, None], solved / torch.where(alive, scale, 1.0)[:, None], 0.0)
        covariance, _ = system.covariances()
        average = new @ system.x / max(system.rows, 1)
        spread = ((new @ covariance) * new).sum(1).clamp_min(0.0)
        bias = self._tensor(2)
        if bias is not None:
            average = average + bias.double()
        weight.copy_(new.view_as(weight))
        mean.copy_(average)
        variance.copy_(spread)
        gamma.copy_(scale * (spread + epsilon).sqrt())
        beta.copy_(offset + scale * (average - (0.0 if bias is None else bias.double())))

    def _input(self) -> fx.Node:
        return cast(fx.Node, self.node.args[0])

    def _tensor(self, position: int) -> Tensor | None:
        if len(self.node.args) <= position or self.node.args[position] is None:
            return None
        return self.network.tensor(str(cast(fx.Node, self.node.args[position]).target))


def _some(x: Tensor, y: Tensor, rows: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    if len(x) <= rows:
        return x, y
    index = torch.randint(len(x), (rows,), generator=draw)
    return x[index], y[index]


def _sole_user(node: fx.Node, targets: set[Any]) -> fx.Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].target in targets else None
