"""CorrectBias: take back the mean error that rounding leaves in each channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, fx

from penjing.contract import LeftAlone, Plan
from penjing.errors import InputError
from penjing.measure import costs
from penjing.network import Network
from penjing.network.analysis.activation_cache import ActivationCache
from penjing.network.edits.fake_quantize import unrounded
from penjing.network.graph.arguments import argument
from penjing.network.graph.layers import CONVOLUTIONS, LAYERS
from penjing.network.graph.qparams import own_bias, weight_qparams
from penjing.passes.conditions import Condition
from penjing.passes.in_turn import InTurn, Work
from penjing.tasks.task import Task


@dataclass(frozen=True)
class CorrectBias(InTurn):
    """Add to each layer's bias what its outputs lack on average, channel by channel.

    In the order of the graph, on the values that a layer really gets once those before it are
    corrected, with y from the same network without any rounding:

        b_i += mean over samples and positions of (y_i - y'_i)

    Layers without a bias get one, which runtimes fuse. Not for a network whose rounding was
    learned (`Reconstruct`): that has seen to the mean error already, and correcting it again, or
    before, makes it worse.

    Attributes:
        samples: training samples to look at, fewer where their values would not fit into memory;
            their labels are not used.

    Raises:
        InputError: an option is out of range; calibration data of another shape.

    Source: M. Nagel, M. van Baalen, T. Blankevoort, M. Welling, "Data-Free Quantization Through
    Weight Equalization and Bias Correction", 2019, appendix D (empirical bias correction).
    """

    samples: int = 512

    requires: ClassVar[frozenset[Condition]] = frozenset({Condition.CALIBRATION, Condition.ROUNDED})
    provides: ClassVar[frozenset[Condition]] = frozenset({Condition.CORRECTED})
    doing: ClassVar[str] = "correcting"

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise InputError(f"samples must be 2 or more to find a mean; found {self.samples}")

    def decide(self, network: Network, task: Task) -> Plan:
        """The layers to correct, and a bias for those that have none."""
        rounded, left = weight_qparams(network), []
        layers: list[str] = []
        bare: list[str] = []
        for node in network.calls():
            if node.target not in LAYERS:
                continue
            why = "" if node in rounded else "its weight is not rounded"
            given = argument(node, "bias") is not None
            if not why and given and own_bias(node) is None:
                why = "its bias is computed or shared"
            if why:
                left.append(LeftAlone(str(node.meta["layer"]), why))
                continue
            layers.append(node.name)
            if not given:
                bare.append(node.name)
        summary = f"biases of {len(layers)} layers corrected {self.on_samples(network)}"
        return self._plan(
            [{"edit": "give_bias", "layers": bare}] if bare else [],
            summary + (f", {len(bare)} of them new" if bare else ""),
            left,
            parts=[(name,) for name in layers],
        )

    def in_memory(self, network: Network) -> int:
        """As without its rounding, for so is one of the two networks."""
        return costs.samples_in_memory(unrounded(network), self.samples)

    def teacher(self, student: Network, task: Task) -> Network:
        """The same network without any rounding."""
        return unrounded(student)

    def begin(self, network: Network, student: ActivationCache, teacher: ActivationCache) -> Work:
        """Move a layer's bias by what its outputs lack on average."""

        def work(layer: fx.Node) -> fx.Node:
            bias = self.known(own_bias(layer), layer)
            usual = _mean(teacher.value_of(layer.name), layer)
            actual = _mean(student.value(layer), layer)
            with torch.no_grad():
                tensor = student.network.tensor(str(bias.target))
                tensor.copy_(tensor.double() + usual - actual)
            rounding = cast(fx.Node, layer.args[2])
            return rounding if rounding is not bias else layer

        return work


def _mean(values: list[Tensor], layer: fx.Node) -> Tensor:
    """Of each channel over all samples and positions, (O,), float64."""
    dim = 1 if layer.target in CONVOLUTIONS else -1
    rows = [value.movedim(dim, -1).flatten(0, -2) for value in values]
    total = torch.stack([part.sum(0, dtype=torch.float64) for part in rows]).sum(0)
    return total / sum(len(part) for part in rows)
