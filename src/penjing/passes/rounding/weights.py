"""Weights: which layers' weights are rounded, with which scales, and what is said of the others."""

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
from penjing.errors import InputError
from penjing.network import Network, carry_out
from penjing.network.analysis.saturation import saturating
from penjing.network.edits.overflow import fix_overflow
from penjing.network.graph.layers import Layer, layers_of
from penjing.network.graph.qparams import qparams_in
from penjing.passes.conditions import Condition
from penjing.passes.structure.widths import is_in


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
