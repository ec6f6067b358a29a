"""Gptq: round a layer's weights one after the other, each making up for those before it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, fx

from penjing.arith.least_squares import NormalEquations
from penjing.arith.rounding import rounded_in_turn
from penjing.contract import LeftAlone, Plan
from penjing.data import calibration
from penjing.errors import InputError
from penjing.measure import costs
from penjing.network import Network, carry_out
from penjing.network.fake_quantized import Grid, own_bias, weight_grids
from penjing.network.lockstep import Lockstep
from penjing.network.rows import groups_of, rows_read, why_not_solved
from penjing.passes.contract import Pass, Progress
from penjing.passes.grids import NOT_ROUNDED
from penjing.task import Task


@dataclass(frozen=True)
class Gptq(Pass):
    """Round weights by the second moments of what they are multiplied with, without labels.

    Layer after layer, on the values that it really gets: the first weights of each output are
    rounded to nearest, and those to come move so that they make up for the error. Where the layer
    has a bias, the mean error goes into that. On ResNet-20 it takes a third of the time of
    `Reconstruct(steps=300)`, and gains less (docs/results.md). The grids stay as `Quantize` chose
    them.

    Attributes:
        samples: training samples to look at, fewer where their values would not fit into memory;
            their labels are not used.
        damping: see `penjing.arith.rounding.rounded_in_turn`.

    Raises:
        InputError: an option is out of range; calibration data of another shape.

    Source: E. Frantar, S. Ashkboos, T. Hoefler, D. Alistarh, "GPTQ: Accurate Post-Training
    Quantization for Generative Pre-trained Transformers", 2023.
    """

    samples: int = 512
    damping: float = 0.01

    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise InputError(f"samples must be 2 or more; found {self.samples}")
        if not 0 < self.damping < 1:
            raise InputError(f"damping must be in (0, 1); found {self.damping}")

    def plan(self, network: Network, task: Task) -> Plan:
        """The layers to round anew; the graph itself stays as it is."""
        name, rounded = type(self).__name__, weight_grids(network)
        if not rounded:
            return Plan(name, asdict(self), left_alone=(NOT_ROUNDED,))
        left = [
            LeftAlone(str(node.meta["layer"]), why)
            for node, grid in rounded.items()
            if (why := why_not_solved(node, _unknowns(network, grid)))
        ]
        count, samples = len(rounded) - len(left), costs.samples_in_memory(network, self.samples)
        summary = f"{count} layers rounded in turn on {samples} samples" if count else ""
        return Plan(name, asdict(self), (), summary, tuple(left))

    def apply(
        self, network: Network, plan: Plan, task: Task, progress: Progress | None = None
    ) -> Network:
        """Round layer after layer on a copy."""
        new = carry_out(network, plan).eval()
        if not plan.summary:
            return new
        samples = costs.samples_in_memory(network, self.samples)
        student = Lockstep(new, list(calibration(task, samples)))
        layers = {
            node: grid
            for node, grid in weight_grids(new).items()
            if not why_not_solved(node, _unknowns(new, grid))
        }
        with torch.no_grad():
            for number, (node, grid) in enumerate(layers.items()):
                if progress is not None:
                    progress(f"rounding {node.meta['layer']}", number / len(layers))
                self._round(new, node, grid, student)
                student.changed(grid.node)
                student.forget_before(node)
        return new

    def _round(self, network: Network, layer: fx.Node, grid: Grid, student: Lockstep) -> None:
        weight, scales = network.tensor(str(grid.source.target)), network.tensor(grid.scale)
        bias, groups = own_bias(layer), groups_of(layer)
        systems = [NormalEquations(weight[0].numel(), 0) for _ in range(groups)]
        for x in student.value(cast(fx.Node, layer.args[0])):
            for system, part in zip(
                systems, rows_read(layer, weight, x).chunk(groups, 1), strict=True
            ):
                system.add(part, part[:, :0])
        parts, shifts = [], []
        for system, old, steps in zip(
            systems, weight.flatten(1).chunk(groups), scales.chunk(groups), strict=True
        ):
            rows = max(system.rows, 1)
            moments = system.xx / rows if bias is None else system.covariances()[0]
            parts.append(rounded_in_turn(old, moments, steps, grid.low, grid.high, self.damping))
            shifts.append((old - parts[-1]).double() @ (system.x / rows))
        weight.copy_(torch.cat(parts).view_as(weight))
        if bias is not None:
            offset: Tensor = network.tensor(str(bias.target))
            offset += torch.cat(shifts).to(offset.dtype)


def _unknowns(network: Network, weight: Grid) -> int:
    """How many numbers each output of a layer is a sum with."""
    return network.tensor(str(weight.source.target))[0].numel()
