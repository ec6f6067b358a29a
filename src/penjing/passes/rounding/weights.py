"""Weights: the layers whose weights are quantized, their scales, and why others are left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import fx

from penjing.arith.quantizer import (
    weight_ends,
    weight_scales,
)
from penjing.contract import LeftAlone, Plan, some_of
from penjing.network import Network, carry_out
from penjing.network.analysis.saturation import saturating
from penjing.network.edits.overflow import fix_overflow
from penjing.network.graph.layers import Layer, layers_of
from penjing.network.graph.qparams import qparams_in
from penjing.passes.conditions import Condition
from penjing.passes.counted import counted
from penjing.passes.names import is_in, require_names
from penjing.passes.rounding.alone import owners


def rounding(weights: bool, values: bool) -> frozenset[Condition]:
    """What a pass provides that quantizes weights, activations or both."""
    conditions = {Condition.ROUNDED: weights, Condition.ROUNDED_VALUES: values}
    return frozenset(condition for condition, provided in conditions.items() if provided)


def why_not(layer: fx.Node) -> str:
    """Why the layer's weight can't be quantized; empty if it can."""
    weight = Layer(layer).weight
    if weight.op != "get_attr":
        return "its weight is computed or quantized already"
    return "it shares its weight with another layer" if len(weight.users) > 1 else ""


def with_bits(noun: str, widths: Sequence[int]) -> str:
    """How many layers or activations there are, and their bits, for the summary of a plan.

    >>> with_bits("layer", [8, 8]), with_bits("layer", [8, 4, 4])
    ('2 layers to 8 bits', '3 layers (2 to 4 bits, 1 to 8 bits)')
    """
    parts = [f"{widths.count(bits)} to {bits} bits" for bits in sorted(set(widths))]
    if len(parts) == 1:
        return f"{counted(len(widths), noun)} to {widths[0]} bits"
    return f"{counted(len(widths), noun)} ({', '.join(parts)})"


def by_channel(network: Network, layers: Iterable[fx.Node], bits: int) -> dict[str, Any]:
    """The `weights` of the edit `fake_quantize`: a scale for each output channel."""
    low, high = weight_ends(bits)
    tensors = {layer.name: network.tensor(Layer(layer).weight_name) for layer in layers}
    return {
        name: {"scales": weight_scales(weight.cpu(), bits).tolist(), "low": low, "high": high}
        for name, weight in tensors.items()
    }


def with_overflow_fix(plan: Plan, network: Network) -> Plan:
    """The plan, extended so that no sum of two products exceeds 16 bits.

    If a sum could, the returned plan enlarges scales at its end and has a note that says how far.
    Otherwise it is `plan` itself.
    """
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
        f"overflow fix: weight scales enlarged by up to a factor of {growth:.3f} in "
        f"{some_of(saturated)}; sums of two products now fit into 16 bits, so x86 processors "
        "without VNNI compute the same results as all others"
    )
    edits = (*plan.edits, {"edit": "fix_overflow"})
    return replace(plan, edits=edits, notes=(*plan.notes, note))


@dataclass(frozen=True)
class Choice:
    """Which layers get few bits, which get more, and which stay in float.

    Attributes:
        few: the nodes of the layers that get few bits.
        wide: the nodes of the first and the last layer, if they get `ends` bits.
        left: the layers that stay in float, and why.
    """

    few: list[fx.Node]
    wide: list[fx.Node]
    left: list[LeftAlone]


def choose(network: Network, skip: Sequence[str], ends_alike: bool, ends_float: bool) -> Choice:
    """Sort the layers of a network.

    Args:
        network: the network.
        skip: names of layers, or prefixes of names, to leave in float.
        ends_alike: treat the first and the last layer like all others.
        ends_float: leave the first and the last layer in float.
    """
    nodes = layers_of(network)
    names = [str(node.meta["layer"]) for node in nodes]
    require_names("skip", skip, [*names, *dict.fromkeys(owners(network).values())])
    choice = Choice([], [], [])
    for node, layer in zip(nodes, names, strict=True):
        at_end = node in ends(nodes) and not ends_alike
        if any(is_in(layer, name) for name in skip):
            choice.left.append(LeftAlone(layer, "it is listed in skip"))
        elif why := why_not(node):
            choice.left.append(LeftAlone(layer, why))
        elif at_end and ends_float:
            choice.left.append(LeftAlone(layer, "it is the first or the last layer"))
        else:
            (choice.wide if at_end else choice.few).append(node)
    return choice


def ends(layers: list[fx.Node]) -> tuple[fx.Node, ...]:
    """The first and the last layer."""
    return (layers[0], layers[-1])
