"""CorrectBias: remove the mean error that quantization leaves in each channel."""

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
from penjing.passes.contract import Progress
from penjing.passes.counted import counted
from penjing.passes.in_turn import InTurn, Work
from penjing.tasks.task import Task


@dataclass(frozen=True)
class CorrectBias(InTurn):
    """Add to each bias the mean error that quantization leaves in the layer's output channels.

    The pass goes through the layers in the order of the graph. Each layer receives the inputs that
    the corrected layers before it produce. With its outputs y'_NO.. and the outputs y_NO.. of the
    same network without any rounding:

        b_O += mean of (y - y') over samples and positions

    A layer without a bias gets one, which runtimes fuse into the layer.

    The pass pays after `Quantize` at little cost, and needs only unlabelled training samples. Don't
    combine it with `Reconstruct`, whose learned rounding accounts for the mean error already: a
    second correction, before or after, makes the result worse.

    Attributes:
        samples: the number of training samples, 2 or more. Fewer are used if their activations
            wouldn't fit into memory.

    Raises:
        InputError: an option is out of range, or the calibration data has another shape.

    Source: M. Nagel, M. van Baalen, T. Blankevoort, M. Welling, "Data-Free Quantization Through
    Weight Equalization and Bias Correction", 2019, appendix D (empirical bias correction).

    >>> import penjing, torch
    >>> from torch import nn
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4, bias=False))
    >>> data = penjing.Arrays(torch.randn(64, 8), torch.arange(64) % 4)
    >>> task = penjing.Task(model, data.x[:2], train=data, test=data)
    >>> quantize = penjing.passes.Quantize(weights=3, ends=3)
    >>> quantized = quantize(penjing.capture(model, task.example), task)
    >>> correct = penjing.passes.CorrectBias(samples=64)
    >>> print(correct.plan(quantized, task).summary)
    corrects the biases of 2 layers on 64 samples (1 of them new)
    >>> sum(p.numel() for p in correct(quantized, task).parameters()) - sum(
    ...     p.numel() for p in quantized.parameters())
    4
    """

    samples: int = 512

    requires: ClassVar[frozenset[Condition]] = frozenset({Condition.CALIBRATION, Condition.ROUNDED})
    provides: ClassVar[frozenset[Condition]] = frozenset({Condition.CORRECTED})
    doing: ClassVar[str] = "correcting"

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise InputError(f"samples must be 2 or more to find a mean; found {self.samples}")

    def decide(self, network: Network, task: Task, progress: Progress) -> Plan:
        """List the layers to correct, and add a bias to those that have none."""
        rounded, left = weight_qparams(network), []
        layers: list[str] = []
        bare: list[str] = []
        for node in network.calls():
            if node.target not in LAYERS:
                continue
            why = "" if node in rounded else "its weight isn't quantized"
            given = argument(node, "bias") is not None
            if not why and given and own_bias(node) is None:
                why = "its bias is computed, or shared with another layer"
            if why:
                left.append(LeftAlone(str(node.meta["layer"]), why))
                continue
            layers.append(node.name)
            if not given:
                bare.append(node.name)
        biases = "bias" if len(layers) == 1 else "biases"
        many = counted(len(layers), "layer")
        summary = f"corrects the {biases} of {many} {self.on_samples(network)}"
        return self._plan(
            [{"edit": "give_bias", "layers": bare}] if bare else [],
            summary + (f" ({len(bare)} of them new)" if bare else ""),
            left,
            parts=[(name,) for name in layers],
        )

    def in_memory(self, network: Network) -> int:
        """As for the network without rounding, since that is one of the two that run."""
        return costs.samples_in_memory(unrounded(network), self.samples)

    def teacher(self, student: Network, task: Task) -> Network:
        """The same network without any rounding."""
        return unrounded(student)

    def begin(self, network: Network, student: ActivationCache, teacher: ActivationCache) -> Work:
        """Add the mean error of a layer's outputs to its bias."""

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
    """The mean of each channel over all samples and positions, (O,), float64."""
    dim = 1 if layer.target in CONVOLUTIONS else -1
    rows = [value.movedim(dim, -1).flatten(0, -2) for value in values]
    total = torch.stack([part.sum(0, dtype=torch.float64) for part in rows]).sum(0)
    return total / sum(len(part) for part in rows)
