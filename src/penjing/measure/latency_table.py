"""LatencyTable: the time of each layer of a network in a runtime, at several widths.

The times are measured in whole exported networks, so that the runtime fuses operators and lays out
memory as it will in the end. Times between the measured widths, or ranks, are interpolated.
`penjing.tools.latency_table` and `penjing.tools.alternatives` measure tables, and this file reads
them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from penjing.errors import InputError
from penjing.measure.cost_model import CostModel, Counts, Part, Polynomial, polynomial
from penjing.network import Axes, Network

LARGEST_ERROR = 0.10
Row = tuple[str, int, int, float]
Alternative = tuple[str, str, tuple[int, ...], float]
FUSED = "fused"
"""The alternative in which the part of the network that ends in a layer is that one layer."""


@dataclass(frozen=True)
class LatencyTable:
    """The milliseconds of each layer at the widths that were measured, as plain data.

    The latency of a network is the sum over its layers.

    Attributes:
        runtime: the runtime that was timed, such as `"onnxruntime"`.
        machine: the machine on which it was timed, for people.
        rows: (layer, inputs, outputs, milliseconds). Inputs and outputs are the second and the
            first dimension of the layer's weight (0 inputs for a vector). A layer's time includes
            the operators without weights that run after it, up to the next layer.
        alternatives: (layer, scheme, numbers, milliseconds): what other layers take in its place.
            The numbers are the ranks of a scheme of `Factorize`. Of the scheme "fused" it is how
            many layers, the last of which is this one, become one.
    """

    runtime: str
    machine: str
    rows: tuple[Row, ...]
    alternatives: tuple[Alternative, ...] = ()

    def __post_init__(self) -> None:
        rows = tuple((str(a), int(b), int(c), float(d)) for a, b, c, d in self.rows)
        object.__setattr__(self, "rows", rows)
        alternatives = tuple(
            (str(layer), str(scheme), tuple(map(int, numbers)), float(ms))
            for layer, scheme, numbers, ms in self.alternatives
        )
        object.__setattr__(self, "alternatives", alternatives)

    @classmethod
    def read(cls, value: Any) -> LatencyTable | None:
        """Read a table from a `LatencyTable`, from a mapping of its fields, or from None."""
        return cls(**value) if isinstance(value, Mapping) else value

    def whole(self) -> dict[str, float]:
        """The milliseconds of each layer at its largest widths."""
        return {layer: row[3] for layer, row in self._largest.items()}

    @cached_property
    def _largest(self) -> dict[str, Row]:
        """The row of each layer at its largest widths."""
        largest: dict[str, Row] = {}
        for row in self.rows:
            old = largest.get(row[0])
            if old is None or row[1:3] > old[1:3]:
                largest[row[0]] = row
        return largest

    def require_for(self, network: Network) -> None:
        """Refuse a table that was measured for another network, or before layers changed.

        Raises:
            InputError: the network lacks a layer of the table, or has it in another size.
        """
        sizes = sizes_of(network)
        for layer, row in self._largest.items():
            size = row[1:3]
            if sizes.get(layer) != size:
                now = f"it is {sizes[layer]}" if layer in sizes else "it isn't there"
                raise InputError(
                    f"the latency table is for another network: its layer {layer!r} has "
                    f"{size} inputs and outputs, but in this network {now}; measure a table for "
                    "this network"
                )

    def in_place_of(self, layer: str, scheme: str, numbers: Sequence[int]) -> float | None:
        """The milliseconds of what replaces a layer, interpolated between the measured ranks.

        None if that wasn't measured.

        >>> table = LatencyTable("onnxruntime", "here", (("conv", 64, 64, 3.0),), (
        ...     ("conv", "channel", (8,), 1.0), ("conv", "channel", (16,), 1.4)))
        >>> round(table.in_place_of("conv", "channel", [12]), 6)
        1.2
        """
        points = self._points.get((layer, scheme))
        if points is None or points.shape[1] != len(numbers) + 1:
            return None
        if len(numbers) == 2:
            return interpolated(points, numbers[0], numbers[1])
        known = np.unique(points[:, 0])
        if scheme == FUSED and numbers[0] not in known:
            return None
        times = [points[points[:, 0] == number, 1].mean() for number in known]
        return float(np.interp(numbers[0], known, times))

    def replaceable(self, layer: str) -> bool:
        """Whether the table has the time of anything in the place of a layer."""
        return any(name == layer for name, _ in self._points)

    @cached_property
    def _points(self) -> dict[tuple[str, str], NDArray[np.float64]]:
        """By layer and scheme, the numbers and milliseconds as rows."""
        points: dict[tuple[str, str], list[tuple[float, ...]]] = {}
        for layer, scheme, numbers, ms in self.alternatives:
            points.setdefault((layer, scheme), []).append((*numbers, ms))
        return {key: np.array(rows, np.float64) for key, rows in points.items()}

    def cost_model(self, axes: Axes) -> CostModel:
        """The latency of a network in milliseconds, as a function of its widths.

        Raises:
            InputError: the table was measured for another network, or at one width only.
        """
        if self.alternatives:
            raise InputError(
                "the latency table has the times of factors and fused layers, but each layer at "
                "one width; for widths, penjing.tools.latency_table.latency_table makes one"
            )
        known: dict[str, list[Row]] = {}
        for row in self.rows:
            known.setdefault(row[0], []).append(row)
        sizes = layer_sizes(axes)
        parts: list[Part] = []
        for layer, rows in known.items():
            if layer not in sizes:
                raise InputError(
                    f"the latency table is for another network: it has a layer {layer!r}, but this "
                    f"network has {', '.join(sorted(sizes)[1:9])}, ...; measure a table for this "
                    "network"
                )
            parts.append(_Timed(*sizes[layer], tuple(rows)))
        whole = {name: group.size for name, group in axes.free.items()}
        return CostModel("latency", tuple(parts), whole, plateaus=True)


@dataclass
class _Timed:
    """The time of one layer, interpolated between the widths at which it was measured."""

    inputs: Polynomial
    outputs: Polynomial
    rows: Sequence[Row]
    seen: dict[tuple[int, int], float] = field(default_factory=dict)

    @property
    def axes(self) -> frozenset[str]:
        return self.inputs.axes | self.outputs.axes

    def at(self, counts: Counts) -> float:
        key = self.inputs.at(counts), self.outputs.at(counts)
        if key not in self.seen:
            points = np.array([row[1:] for row in self.rows], np.float64)
            self.seen[key] = interpolated(points, *key)
        return self.seen[key]


def interpolated(points: NDArray[np.float64], inputs: int, outputs: int) -> float:
    """The time at any widths, interpolated between the measured points (n, 3).

    If points have exactly these widths, the result is their average. Otherwise
    t = a + b i + c o + d i o is fitted to the points, each weighted by the inverse fourth power of
    its distance. The result is about bilinear between four points that form a rectangle, and linear
    between two points on a line. It is defined for any arrangement of points.

    >>> line = np.array([[0, 8, 1.0], [0, 16, 3.0]])
    >>> round(interpolated(line, 0, 8), 6), round(interpolated(line, 0, 12), 6)
    (1.0, 2.0)
    """
    here = (points[:, 0] == inputs) & (points[:, 1] == outputs)
    if here.any():
        return float(points[here, 2].mean())
    scale = np.maximum(points[:, :2].max(0), 1.0)
    i, o = (points[:, :2] / scale - np.array([inputs, outputs]) / scale).T  # where we are is 0
    weight = 1.0 / (i**2 + o**2 + 1e-6) ** 2
    weight /= weight.sum()
    features = np.stack([i, o, i * o], 1)
    middle, time = weight @ features, float(weight @ points[:, 2])
    root = np.sqrt(weight)[:, None]
    slopes = np.linalg.lstsq((features - middle) * root, (points[:, 2:] - time) * root, 1e-6)[0]
    return float(np.clip(time - middle @ slopes[:, 0], 0.0, points[:, 2].max()))


def layer_sizes(axes: Axes) -> dict[str, tuple[Polynomial, Polynomial]]:
    """The inputs and outputs of each layer with weights: the dimensions of its largest tensor."""
    network, trace = axes.trace.network, axes.trace
    names = {group.axis: name for name, group in axes.free.items()}
    nothing = Polynomial({})
    widths = {}
    parameters = dict(network.named_parameters())
    traced = {name: parameters[name] for name in parameters if name in trace.tensors}
    for layer, tensor in _largest_tensors(traced).items():
        dims = [polynomial(expression, names) for expression in trace.tensors[tensor]]
        widths[layer] = (dims[1] if len(dims) > 1 else nothing, dims[0] if dims else nothing)
    return widths


def sizes_of(network: Network) -> dict[str, tuple[int, int]]:
    """The inputs and outputs of each layer with weights, as `layer_sizes` has them uncut."""
    parameters = dict(network.named_parameters())
    sizes = {}
    for layer, name in _largest_tensors(parameters).items():
        shape = parameters[name].shape
        sizes[layer] = (shape[1] if len(shape) > 1 else 0, shape[0] if shape else 0)
    return sizes


def _largest_tensors(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """By layer, the name of its largest tensor, the first one of several."""
    largest: dict[str, str] = {}
    for name, tensor in tensors.items():
        layer = name.rpartition(".")[0]
        if layer not in largest or tensor.numel() > tensors[largest[layer]].numel():
            largest[layer] = name
    return largest


def require_additive(pairs: Mapping[str, tuple[float, float]]) -> None:
    """Refuse a table that doesn't predict the latency of whole networks.

    Args:
        pairs: the (predicted, measured) milliseconds of each network that was timed.

    Raises:
        InputError: a prediction is off by more than 10 %. The message gives both figures.
    """
    for what, (predicted, measured) in pairs.items():
        error = abs(predicted - measured) / measured
        if not error <= LARGEST_ERROR:
            raise InputError(
                f"the latency table isn't accurate: its layers add up to {predicted:.4f} ms for "
                f"{what}, but {measured:.4f} ms were measured ({error:.0%} off, at most "
                f"{LARGEST_ERROR:.0%} is allowed); close other programs and measure again, or give "
                "the budget in macs"
            )
