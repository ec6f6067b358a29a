"""Calibration: the quantization parameters of activations, for every pass that quantizes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from penjing.arith.quantizer import (
    INT16,
    TINY,
    RangeMethod,
    activation_range,
    scale_and_zero_point,
)
from penjing.contract import LeftAlone
from penjing.errors import InputError
from penjing.network import Network
from penjing.network.graph.layers import Layer, layers_of
from penjing.passes.conditions import Condition
from penjing.passes.rounding.places import (
    BOUNDED,
    kept_narrow,
    share_when_joined,
    values_to_round,
    with_int16,
)
from penjing.passes.rounding.weights import ends
from penjing.tasks.data import calibration
from penjing.tasks.task import Task, as_call

VALUES_PER_BATCH = 4_096
NO_KERNEL = "its result keeps eight bits: an operator reads it that has no kernel for 16"


@dataclass(frozen=True)
class Calibration:
    """Chooses the quantization parameters of activations on training samples.

    Attributes:
        bits: the bits of the inputs of layers. Sums, pools, concatenations and the inputs of the
            first and the last layer keep eight.
        ranges, samples, percentile, outputs, elementwise, symmetric: see
            `penjing.passes.rounding.quantize.Quantize`.
        int16: the nodes of the layers whose results get 16 bits.
    """

    bits: int
    ranges: RangeMethod = "mse"
    samples: int = 512
    percentile: float = 99.99
    outputs: bool = False
    elementwise: bool = False
    symmetric: bool = False
    int16: Sequence[fx.Node] = ()

    def __call__(
        self, network: Network, task: Task, layers: list[fx.Node], left: list[LeftAlone]
    ) -> dict[str, Any]:
        """The `activations` of the edit `fake_quantize`, for the inputs and outputs of `layers`.

        Args:
            network: the network, with its batch norms folded.
            task: its training data calibrates.
            layers: the layers that compute on integers.
            left: remarks are added here.
        """
        rounded, roots = values_to_round(network, layers, self.outputs, self.elementwise)
        values = _collect(network, task, self.samples, set(roots.values()))
        all_layers = layers_of(network)
        read: dict[fx.Node, int] = {}
        for node in rounded:
            readers = {user for user in node.users if user in layers and Layer(user).data is node}
            if readers:
                wanted = 8 if readers & set(ends(all_layers)) else self.bits
                read[roots[node]] = max(read.get(roots[node], 0), wanted)
        wide = with_int16(rounded, roots, self.int16)
        left += [
            LeftAlone(str(layer.meta["layer"]), NO_KERNEL)
            for layer in kept_narrow(self.int16, roots, wide)
        ]
        bits = {root: 16 if root in wide else read.get(root, 8) for root in values}
        ranges = {root: self._range(seen) for root, seen in values.items()}
        roots = share_when_joined(rounded, roots, ranges, bits)
        qparams: dict[fx.Node, dict[str, float]] = {}
        for root in dict.fromkeys(roots[node] for node in rounded):
            width, where = bits[root], root.meta.get("layer") or root.name
            parts = [
                values[member] for member in roots if member in values and roots[member] is root
            ]
            seen = _some_of(parts)
            if float(seen.min()) == float(seen.max()):
                why = "its input or output is constant on all calibration samples; range guessed"
                left.append(LeftAlone(where, why))
            bounds = BOUNDED.get(root.target) if self.elementwise and len(parts) == 1 else None
            try:
                qparams[root] = self._qparams(seen, width, bounds)
            except InputError as error:
                raise InputError(f"calibration failed at {where}: {error}") from error
        return {node.name: {**qparams[roots[node]], "root": roots[node].name} for node in rounded}

    def _qparams(
        self, values: Tensor, bits: int, bounds: tuple[float, float] | None
    ) -> dict[str, float]:
        """Scale, zero point, and the smallest and the largest integer.

        Args:
            values: a sample of those to represent.
            bits: the number of bits.
            bounds: the range of the operator's results that integer kernels take, if there is one.
        """
        if bits == 16:
            (low, high), top = INT16, float(values.abs().max())
            activation_range(values, "minmax")  # refuses what isn't finite
            scale = 1 / (high + 1) if bounds else max(top / high, TINY)
            return {"scale": scale, "zero_point": 0, "low": low, "high": high}
        seen = torch.cat([values, -values]) if self.symmetric else values
        ends = activation_range(seen, self.ranges, bits, self.percentile)
        if bounds and not self.symmetric:
            ends = bounds
        scale, zero = scale_and_zero_point(*ends, 2**bits - 1)
        if self.symmetric:
            zero = 2 ** (bits - 1)  # the range that was chosen is off by half a step
        return {"scale": scale, "zero_point": zero, "low": 0, "high": 2**bits - 1}

    def _range(self, values: Tensor) -> tuple[float, float]:
        """The smallest and the largest value to represent; the range includes zero."""
        low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
        return (-max(-low, high), max(-low, high)) if self.symmetric else (low, high)


def calibrated(activations: int | None) -> frozenset[Condition]:
    """The requirements of a pass that quantizes activations to so many bits, or not at all."""
    return frozenset() if activations is None else frozenset({Condition.CALIBRATION})


def _some_of(parts: Sequence[Tensor]) -> Tensor:
    """Join the parts, but keep only as many values as one part has, and the extremes of each."""
    if len(parts) == 1:
        return parts[0]
    ends = [torch.stack([part.min(), part.max()]) for part in parts]
    return torch.cat([*(part[:: len(parts)] for part in parts), *ends])


class _Collector(fx.Interpreter):
    """Runs the graph and keeps a random sample of the values of some nodes."""

    def __init__(self, network: Network, wanted: set[fx.Node]) -> None:
        super().__init__(network, graph=network.graph)
        self.network = network
        self.values: dict[fx.Node, list[Tensor]] = {node: [] for node in wanted}
        self.draw = torch.Generator().manual_seed(0)

    def fetch_attr(self, target: str) -> Any:
        return self.network.tensor(target)

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self.values:
            flat = value.flatten()
            ends = torch.stack([flat.min(), flat.max()])
            if len(flat) > VALUES_PER_BATCH:
                flat = flat[torch.randint(len(flat), (VALUES_PER_BATCH,), generator=self.draw)]
            self.values[n].append(torch.cat([flat, ends]))
        return value


def _collect(
    network: Network, task: Task, samples: int, wanted: set[fx.Node]
) -> dict[fx.Node, Tensor]:
    collector = _Collector(network, wanted)
    with torch.no_grad():
        for inputs in calibration(task, samples):
            args, kwargs = as_call(inputs)
            leaves = torch.utils._pytree.tree_leaves((args, kwargs))
            collector.run(*leaves, enable_io_processing=False)
    return {node: torch.cat(parts) for node, parts in collector.values.items()}
