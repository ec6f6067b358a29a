"""Where values are rounded, and which of them share a grid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx

from penjing.network import Network
from penjing.network.graph.arguments import read_by
from penjing.network.graph.layers import CONVOLUTIONS, LAYERS, Layer

aten = torch.ops.aten
CLAMPS = {
    aten.relu.default, aten.relu_.default, aten.hardtanh.default, aten.hardtanh_.default,
    aten.relu6.default, aten.clamp.default, aten.clamp_.default,
}  # fmt: skip
SUMS = {aten.add.Tensor, aten.add_.Tensor}
CONCATENATION = aten.cat.default
JOINED = SUMS | {CONCATENATION, aten.adaptive_avg_pool2d.default, aten.avg_pool2d.default}
PASSING = {
    aten.max_pool2d.default, aten.flatten.using_ints, aten.reshape.default,
    aten.slice.Tensor, aten.pad.default, aten.dropout.default, aten.dropout_.default,
    aten.permute.default, aten.transpose.int, aten.contiguous.default,
}  # fmt: skip
BOUNDED: Mapping[Any, tuple[float, float]] = {
    aten.sigmoid.default: (0.0, 255 / 256), aten.sigmoid_.default: (0.0, 255 / 256),
    aten.tanh.default: (-1.0, 127 / 128), aten.tanh_.default: (-1.0, 127 / 128),
    aten.hardsigmoid.default: (0.0, 1.0), aten.hardsigmoid_.default: (0.0, 1.0),
}  # fmt: skip
"""By operator, the range on which kernels give what it gives in eight bits: 1 / 256 for a sigmoid,
1 / 128 for a tangent."""
PRODUCTS = {aten.mul.Tensor, aten.mul_.Tensor}
ELEMENTWISE = {
    *BOUNDED, *PRODUCTS, aten.hardswish.default, aten.hardswish_.default, aten.silu.default,
    aten.silu_.default, aten.gelu.default, aten.leaky_relu.default, aten.leaky_relu_.default,
}  # fmt: skip
WIDEST = 2.0
"""How many times as wide as it must be a grid may be for what reads it, so that values share it."""


def values_to_round(
    network: Network, layers: list[fx.Node], all_results: bool, elementwise: bool
) -> tuple[list[fx.Node], dict[fx.Node, fx.Node]]:
    """The values to round, in order, and for each its root, the value whose range gives its grid.

    Args:
        layers: those that compute on integers.
        all_results: round what they give even where nothing reads integers, and what is
            concatenated of that.
        elementwise: round what activations and products give of rounded values.
    """
    wanted: set[fx.Node] = set()
    others = JOINED | PASSING | (ELEMENTWISE if elementwise else set())
    outputs = {  # of the network
        source
        for node in network.graph.nodes
        if node.op == "output"
        for source in node.all_input_nodes
    }
    last = outputs if all_results else set()
    for node in layers:
        wanted.add(Layer(node).data)
    changed = True
    while changed:
        before = len(wanted)
        for node in network.calls():
            edge = _edge(node)
            if edge in outputs - last:
                continue
            if node in layers and (all_results or node.target in CONVOLUTIONS):
                wanted.add(edge)
            elif node in layers or (node.target in others and not _by_a_constant(node)):
                inputs = [source for source in node.all_input_nodes if source.op != "get_attr"]
                ready = all(_edge(source) in wanted or source in wanted for source in inputs)
                feeds = (
                    edge in last
                    or (all_results and node.target is CONCATENATION)
                    or any(user in layers or user.target in others for user in edge.users)
                )
                if feeds and (ready or node in layers):
                    wanted.add(edge)
                    wanted.update(source for source in inputs if node.target not in LAYERS)
        changed = len(wanted) > before
    order = [node for node in network.graph.nodes if node in wanted]
    roots: dict[fx.Node, fx.Node] = {}
    for node in order:
        roots[node] = roots.get(read_by(node), node) if node.target in PASSING else node
    return order, roots


def _edge(node: fx.Node) -> fx.Node:
    """Where a layer's or sum's result is rounded: behind the clamp that alone reads it."""
    if node.target in LAYERS | SUMS and len(node.users) == 1:
        user = next(iter(node.users))
        if user.target in CLAMPS:
            return user
    return node


def _by_a_constant(node: fx.Node) -> bool:
    """Whether it is a product with a number or a parameter, which has no grid."""
    computed = [
        operand
        for operand in node.args
        if isinstance(operand, fx.Node) and operand.op != "get_attr"
    ]
    return node.target in PRODUCTS and len(computed) < 2


def share_when_joined(
    rounded: Sequence[fx.Node],
    roots: Mapping[fx.Node, fx.Node],
    ranges: Mapping[fx.Node, tuple[float, float]],
    bits: Mapping[fx.Node, int],
) -> dict[fx.Node, fx.Node]:
    """Give a concatenation and its parts one grid, so that joining them rounds nothing again.

    A concatenation keeps a grid of its own where

    - the range of all would be more than `WIDEST` times the narrowest on which one of them is read;
      what is only joined is read on the range of what it is joined to,
    - it would begin below zero for a part behind a ReLU, which runtimes leave out only if the grid
      itself cuts off what is negative,
    - the bits differ, as those of what layers read and of what is only joined if they are few.

    Args:
        rounded: in order.
        roots: by value, that whose range gives its grid.
        ranges: by root, the least and the greatest value, zero among them.
        bits: by root.

    Returns:
        The new roots; each is the first, in order, of the values on its grid.
    """
    narrowest = _narrowest_reads(rounded, roots, ranges)
    new_roots = dict(roots)
    for node in rounded:
        parts = node.all_input_nodes
        if node.target is not CONCATENATION or not all(part in roots for part in parts):
            continue
        joined = {new_roots[value] for value in (*parts, node)}
        members = [root for root in ranges if new_roots[root] in joined]
        lows, highs = zip(*(ranges[root] for root in members), strict=True)
        behind_relu = any(root.target in CLAMPS and ranges[root][0] == 0 for root in members)
        keeps_relu = not (behind_relu and min(lows) < 0)
        fine = max(highs) - min(lows) <= WIDEST * min(narrowest[root] for root in members)
        finite = all(map(math.isfinite, (*lows, *highs)))
        if fine and finite and keeps_relu and len({bits[root] for root in members}) == 1:
            first = next(value for value in rounded if new_roots[value] in joined)
            new_roots |= {value: first for value in rounded if new_roots[value] in joined}
    return new_roots


def _narrowest_reads(
    rounded: Sequence[fx.Node],
    roots: Mapping[fx.Node, fx.Node],
    ranges: Mapping[fx.Node, tuple[float, float]],
) -> dict[fx.Node, float]:
    """By root, the width of the narrowest range on which something reads it: its own, or that of a
    concatenation that it goes into."""
    narrowest: dict[fx.Node, float] = {}
    for node in reversed(rounded):
        root = roots[node]
        for user in node.users:
            if roots.get(user) is root:
                continue  # it is in `rounded` itself, and its users tell
            if user in roots and user.target is CONCATENATION:
                width = narrowest[user]
            else:
                width = ranges[root][1] - ranges[root][0]
            narrowest[root] = min(narrowest.get(root, width), width)
    return narrowest
