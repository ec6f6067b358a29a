"""Calibration: the quantization parameters that the passes that make integers choose from data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from penjing.arith.quantizer import (
    RangeMethod,
    activation_range,
    scale_and_zero_point,
    weight_ends,
    weight_scales,
)
from penjing.contract import LeftAlone, Plan, some_of
from penjing.errors import InputError
from penjing.network import Network, carry_out
from penjing.network.analysis.saturation import saturating
from penjing.network.edits.overflow import fix_overflow
from penjing.network.graph.layers import Layer, layers_of
from penjing.network.graph.qparams import qparams_in
from penjing.passes.conditions import Condition
from penjing.passes.rounding.places import BOUNDED, share_when_joined, values_to_round
from penjing.passes.structure.widths import is_in
from penjing.tasks.data import calibration
from penjing.tasks.task import Task, as_call

VALUES_PER_BATCH = 4_096


@dataclass(frozen=True)
class Calibration:
    """Quantization parameters of values, from what training samples give.

    Attributes:
        bits: of what layers read; sums, pools and concatenations keep eight, as does whatever the
            first and the last layer read.
        ranges, samples, percentile, outputs, elementwise, symmetric: see
            `penjing.passes.rounding.quantize.Quantize`.
    """

    bits: int
    ranges: RangeMethod = "mse"
    samples: int = 512
    percentile: float = 99.99
    outputs: bool = False
    elementwise: bool = False
    symmetric: bool = False

    def __call__(
        self, network: Network, task: Task, layers: list[fx.Node], left: list[LeftAlone]
    ) -> dict[str, Any]:
        """The `activations` of the edit `fake_quantize`, for what `layers` read and give."""
        rounded, roots = values_to_round(network, layers, self.outputs, self.elementwise)
        values = _collect(network, task, self.samples, set(roots.values()))
        all_layers = layers_of(network)
        read: dict[fx.Node, int] = {}
        for node in rounded:
            readers = {user for user in node.users if user in layers and Layer(user).data is node}
            if readers:
                wanted = 8 if readers & set(ends(all_layers)) else self.bits
                read[roots[node]] = max(read.get(roots[node], 0), wanted)
        bits = {root: read.get(root, 8) for root in values}
        ranges = {root: self._range(seen) for root, seen in values.items()}
        roots = share_when_joined(rounded, roots, ranges, bits)
        grids: dict[fx.Node, dict[str, float]] = {}
        for root in dict.fromkeys(roots[node] for node in rounded):
            width, where = bits[root], root.meta.get("layer") or root.name
            parts = [
                values[member] for member in roots if member in values and roots[member] is root
            ]
            seen = _some_of(parts)
            if float(seen.min()) == float(seen.max()):
                left.append(LeftAlone(where, "constant on all calibration samples; grid guessed"))
            if self.symmetric:
                seen = torch.cat([seen, -seen])
            try:
                low, high = activation_range(seen, self.ranges, width, self.percentile)
            except InputError as error:
                raise InputError(f"calibration: at {where}, {error}") from error
            if self.elementwise and len(parts) == 1 and not self.symmetric:
                low, high = BOUNDED.get(root.target, (low, high))
            scale, zero = scale_and_zero_point(low, high, 2**width - 1)
            if self.symmetric:
                zero = 2 ** (width - 1)  # zero is half a step off the middle of what was found
            grids[root] = {"scale": scale, "zero_point": zero, "low": 0, "high": 2**width - 1}
        return {node.name: {**grids[roots[node]], "root": roots[node].name} for node in rounded}

    def _range(self, values: Tensor) -> tuple[float, float]:
        """The least and the greatest value that the grid reaches, zero among them."""
        low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
        return (-max(-low, high), max(-low, high)) if self.symmetric else (low, high)


def calibrated(activations: int | None) -> frozenset[Condition]:
    """What a pass requires whose values get grids of so many bits, or none."""
    return frozenset() if activations is None else frozenset({Condition.CALIBRATION})


def rounding(weights: bool, values: bool) -> frozenset[Condition]:
    """What a pass provides that puts weights or values on grids, or both."""
    conditions = {Condition.ROUNDED: weights, Condition.ROUNDED_VALUES: values}
    return frozenset(condition for condition, provided in conditions.items() if provided)


def require_layers(option: str, given: Sequence[str], layers: Sequence[str]) -> None:
    """Raise InputError unless each name that an option was given is a layer or a prefix of one."""
    for name in given:
        if not any(is_in(layer, name) for layer in layers):
            raise InputError(
                f"{option} names {name!r}, which is no layer; there are {', '.join(layers)}"
            )


def why_not(layer: fx.Node) -> str:
    """Why the layer's weight can't be rounded; empty if it can."""
    weight = Layer(layer).weight
    if weight.op != "get_attr":
        return "its weight is computed"
    return "its weight is shared" if len(weight.users) > 1 else ""


def by_channel(network: Network, layers: Iterable[fx.Node], bits: int) -> dict[str, Any]:
    """The `weights` of the edit `fake_quantize`: a scale for each output channel."""
    low, high = weight_ends(bits)
    tensors = {layer.name: network.tensor(Layer(layer).weight_name) for layer in layers}
    return {
        name: {"scales": weight_scales(weight.cpu(), bits).tolist(), "low": low, "high": high}
        for name, weight in tensors.items()
    }


def with_overflow_fix(plan: Plan, network: Network) -> Plan:
    """The plan for this network, with scales enlarged at its end where sums may leave 16 bits, and
    a note of how far; the plan itself where none may."""
    rounded = carry_out(network, plan)
    saturated = saturating(rounded)
    if not saturated:
        return plan
    before = {
        qparams.scale: rounded.tensor(qparams.scale).detach().clone()
        for qparams in qparams_in(rounded)
    }
    fix_overflow(rounded)
    growth = max(
        float((rounded.tensor(name).detach() / scale).max()) for name, scale in before.items()
    )
    note = (
        f"overflow fix: scales grew, by up to {growth:.3f} times, in {some_of(saturated)}, so that "
        "sums of two products fit 16 bits and x86 processors without VNNI decide alike"
    )
    edits = (*plan.edits, {"edit": "fix_overflow"})
    return replace(plan, edits=edits, notes=(*plan.notes, note))


@dataclass(frozen=True)
class Choice:
    """The layers that get codes of few bits, those that get `ends` bits, and the others.

    Attributes:
        few, wide: nodes.
        left: what stays in float, and why.
    """

    few: list[fx.Node]
    wide: list[fx.Node]
    left: list[LeftAlone]


def choose(network: Network, skip: Sequence[str], ends_alike: bool, ends_float: bool) -> Choice:
    """All layers but those in `skip`; the first and the last apart, unless they are alike."""
    nodes = layers_of(network)
    names = [str(node.meta["layer"]) for node in nodes]
    require_layers("skip", skip, names)
    choice = Choice([], [], [])
    for node, layer in zip(nodes, names, strict=True):
        at_end = node in ends(nodes) and not ends_alike
        if any(is_in(layer, name) for name in skip):
            choice.left.append(LeftAlone(layer, "named in skip"))
        elif why := why_not(node):
            choice.left.append(LeftAlone(layer, why))
        elif at_end and ends_float:
            choice.left.append(LeftAlone(layer, "first or last layer"))
        else:
            (choice.wide if at_end else choice.few).append(node)
    return choice


def ends(layers: list[fx.Node]) -> tuple[fx.Node, ...]:
    """The first and the last layer."""
    return (layers[0], layers[-1])


def _some_of(parts: Sequence[Tensor]) -> Tensor:
    """As many values as one part has, in equal shares, and the least and the greatest of each."""
    if len(parts) == 1:
        return parts[0]
    ends = [torch.stack([part.min(), part.max()]) for part in parts]
    return torch.cat([*(part[:: len(parts)] for part in parts), *ends])


class _Collector(fx.Interpreter):
    """Keeps a sample of the values of some nodes while it runs the graph."""

    def __init__(self, network: Network, wanted: set[fx.Node]) -> None:
        super().__init__(network, graph=network.graph)
        self.network = network
        self.found: dict[fx.Node, list[Tensor]] = {node: [] for node in wanted}
        self.draw = torch.Generator().manual_seed(0)

    def fetch_attr(self, target: str) -> Any:
        return self.network.tensor(target)

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self.found:
            flat = value.flatten()
            ends = torch.stack([flat.min(), flat.max()])
            if len(flat) > VALUES_PER_BATCH:
                flat = flat[torch.randint(len(flat), (VALUES_PER_BATCH,), generator=self.draw)]
            self.found[n].append(torch.cat([flat, ends]))
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
    return {node: torch.cat(parts) for node, parts in collector.found.items()}
