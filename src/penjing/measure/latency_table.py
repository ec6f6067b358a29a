"""LatencyTable: what each layer of a network takes in a runtime, at several widths.

The times are those of layers within whole exported networks, so that what the runtime fuses and
how it lays out memory are what they will be; between the widths that were measured they are
interpolated. `penjing.tools.latency_table` measures one; this file reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from penjing.errors import InputError
from penjing.measure.cost_model import CostModel, Counts, Part, Polynomial, polynomial
from penjing.network import Axes

LARGEST_ERROR = 0.10
Row = tuple[str, int, int, float]


@dataclass(frozen=True)
class LatencyTable:
    """Milliseconds of each layer at the widths that were measured; plain data, JSON in and out.

    The latency of a network is the sum over its layers.

    Attributes:
        runtime: which runtime took these times, such as `"onnxruntime"`.
        machine: where, for people.
        rows: (layer, indices of its input, indices of its output, milliseconds), where inputs and
            outputs are the second and the first dimension of its weight (0 inputs for a vector).
            The operators without weights that run after a layer, up to the next, are in its time.
    """

    runtime: str
    machine: str
    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        rows = tuple((str(a), int(b), int(c), float(d)) for a, b, c, d in self.rows)
        object.__setattr__(self, "rows", rows)

    def cost_model(self, axes: Axes) -> CostModel:
        """The latency of a network in milliseconds as a function of its widths.

        Raises:
            InputError: the table is of another network.
        """
        known: dict[str, list[Row]] = {}
        for row in self.rows:
            known.setdefault(row[0], []).append(row)
        sizes = layer_sizes(axes)
        parts: list[Part] = []
        for layer, rows in known.items():
            if layer not in sizes:
                raise InputError(
                    f"the latency table is of another network: it has a layer {layer!r}, this one "
                    f"has {', '.join(sorted(sizes)[1:9])}, ..; make it from this network"
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
    """A time at widths that needn't be among the measured points (n, 3).

    Points at these very widths are averaged. Else it is the value there of
    t = a + b i + c o + d i o, fitted to the points, each weighted by the fourth power of its
    nearness: about bilinear within a cell of a grid and linear between two points on a line, and
    still defined for points that lie anyhow.

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
    """Inputs and outputs of each layer with weights: the dimensions of its largest tensor."""
    network, trace = axes.trace.network, axes.trace
    names = {group.axis: name for name, group in axes.free.items()}
    largest: dict[str, str] = {}
    for name, parameter in network.named_parameters():
        layer = name.rpartition(".")[0]
        old = largest.get(layer)
        if name in trace.tensors and (
            old is None or parameter.numel() > network.tensor(old).numel()
        ):
            largest[layer] = name
    nothing = Polynomial({})
    widths = {}
    for layer, tensor in largest.items():
        dims = [polynomial(expression, names) for expression in trace.tensors[tensor]]
        widths[layer] = (dims[1] if len(dims) > 1 else nothing, dims[0] if dims else nothing)
    return widths


def require_additive(pairs: Mapping[str, tuple[float, float]]) -> None:
    """Refuse a table that doesn't predict whole networks.

    Args:
        pairs: what was timed to (predicted, measured) milliseconds.

    Raises:
        InputError: one of them is off by more than 10 %; the line gives both figures.
    """
    for what, (predicted, measured) in pairs.items():
        error = abs(predicted - measured) / measured
        if not error <= LARGEST_ERROR:
            raise InputError(
                f"the latency table is refused: its layers add up to {predicted:.4f} ms for "
                f"{what}, measured {measured:.4f} ms, {error:.0%} off (at most "
                f"{LARGEST_ERROR:.0%}); close other programs and measure again, or give the "
                "budget in macs"
            )
