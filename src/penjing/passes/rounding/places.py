"""Places: where activations are rounded, and which of them share quantization parameters."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from penjing.network import Network
from penjing.network.graph.arguments import read_by
from penjing.network.graph.layers import CLAMPS, CONVOLUTIONS, LAYERS, Layer

aten = torch.ops.aten
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
    aten.softmax.int: (0.0, 255 / 256),
}  # fmt: skip
"""By operator, the range that integer kernels use for its output in eight bits. The scale is
1 / 256 for a sigmoid and a softmax, and 1 / 128 for a tanh."""
PRODUCTS = {aten.mul.Tensor, aten.mul_.Tensor}
ELEMENTWISE = {
    *BOUNDED, *PRODUCTS, aten.hardswish.default, aten.hardswish_.default, aten.silu.default,
    aten.silu_.default, aten.gelu.default, aten.leaky_relu.default, aten.leaky_relu_.default,
}  # fmt: skip
INT16_KERNELS = {
    *SUMS, *PRODUCTS, *PASSING, CONCATENATION, aten.avg_pool2d.default,
    aten.adaptive_avg_pool2d.default, aten.sigmoid.default, aten.sigmoid_.default,
    aten.tanh.default, aten.tanh_.default, *CLAMPS, *LAYERS,
}  # fmt: skip
"""Operators that runtimes compute on values of 16 bits, if they compute on any."""
WIDEST = 2.0
"""Activations share quantization parameters only if no reader then gets a range that is more than
this many times as wide as it needs."""


def values_to_round(
    network: Network, layers: list[fx.Node], all_results: bool, elementwise: bool
) -> tuple[list[fx.Node], dict[fx.Node, fx.Node]]:
    """The activations to round, in the order of the graph, and the root of each.

    The root of an activation is the one whose range sets its quantization parameters.

    Args:
        network: the network.
        layers: the layers that compute on integers.
        all_results: round the outputs of layers, and concatenations of them, even if no reader
            computes on integers.
        elementwise: round the outputs of activation functions and products of rounded values.
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


def with_int16(
    rounded: Sequence[fx.Node], roots: Mapping[fx.Node, fx.Node], layers: Sequence[fx.Node]
) -> set[fx.Node]:
    """The roots that get 16 bits: of the results of these layers, of what other operators than
    layers compute from those, and of what is concatenated with them.

    A value keeps eight bits if an operator reads it that is computed on eight bits only.
    """
    able = {root for root in roots.values() if _may_be_int16(root, roots)}
    wide = {roots[_edge(layer)] for layer in layers if _edge(layer) in roots} & able
    count = -1
    while len(wide) > count:
        count = len(wide)
        for node in rounded:
            is_clamped = node.target in CLAMPS and read_by(node) not in roots
            source = read_by(node) if is_clamped else node
            parts = [roots[value] for value in source.all_input_nodes if value in roots]
            if source.target not in LAYERS and not wide.isdisjoint(parts):
                wide |= {roots[node]} & able
            if node.target is CONCATENATION and roots[node] in wide:
                wide |= set(parts) & able
    return wide


def _may_be_int16(root: fx.Node, roots: Mapping[fx.Node, fx.Node]) -> bool:
    """Whether all operators that read values of this root have kernels for 16 bits."""
    readers = {user for value in roots if roots[value] is root for user in value.users}
    return all(user.target in INT16_KERNELS for user in readers if user in roots)


def kept_narrow(
    layers: Sequence[fx.Node], roots: Mapping[fx.Node, fx.Node], wide: Collection[fx.Node]
) -> list[fx.Node]:
    """Those of the layers whose results are rounded, but not to 16 bits."""
    return [layer for layer in layers if _edge(layer) in roots and roots[_edge(layer)] not in wide]


def _edge(node: fx.Node) -> fx.Node:
    """Where the result of a layer or sum is rounded: behind a clamp, if that is the only reader."""
    if node.target in LAYERS | SUMS and len(node.users) == 1:
        user = next(iter(node.users))
        if user.target in CLAMPS:
            return user
    return node


def _by_a_constant(node: fx.Node) -> bool:
    """Whether the node is a product with a number or a parameter, which isn't quantized."""
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
    """Let a concatenation and its parts share quantization parameters, so that nothing is rounded
    twice.

    A concatenation keeps its own quantization parameters if

    - the common range would be more than `WIDEST` times as wide as the narrowest range on which
      one of the values is read; a value that is only concatenated is read on the range of the
      concatenation,
    - a part is a sigmoid or a tanh of 16 bits, for which kernels have one scale,
    - the common range would begin below zero for a part behind a ReLU: runtimes can leave out a
      ReLU only if the range of its output starts at zero,
    - the bits differ, because the inputs of layers have fewer bits than values that are only
      concatenated.

    Args:
        rounded: the activations to round, in order.
        roots: by activation, its root.
        ranges: by root, the smallest and the largest value, with zero in between.
        bits: by root, the bits.

    Returns:
        The new roots. Each is the first, in order, of the activations that share its parameters.
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
        fixed = any(root.target in BOUNDED and bits[root] == 16 for root in members)
        alike = len({bits[root] for root in members}) == 1 and not fixed
        if fine and finite and keeps_relu and alike:
            first = next(value for value in rounded if new_roots[value] in joined)
            new_roots |= {value: first for value in rounded if new_roots[value] in joined}
    return new_roots


def _narrowest_reads(
    rounded: Sequence[fx.Node],
    roots: Mapping[fx.Node, fx.Node],
    ranges: Mapping[fx.Node, tuple[float, float]],
) -> dict[fx.Node, float]:
    """By root, the width of the narrowest range on which a reader reads it.

    That is its own range, or the range of a concatenation that it is part of.
    """
    narrowest: dict[fx.Node, float] = {}
    for node in reversed(rounded):
        root = roots[node]
        for user in node.users:
            if roots.get(user) is root:
                continue  # it is in `rounded` too, so its users are seen
            if user in roots and user.target is CONCATENATION:
                width = narrowest[user]
            else:
                width = ranges[root][1] - ranges[root][0]
            narrowest[root] = min(narrowest.get(root, width), width)
    return narrowest
