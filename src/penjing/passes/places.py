"""Where values are rounded, and which of them share a grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, fx

from penjing.network import Network
from penjing.network.layers import CONVOLUTIONS, LAYERS

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
TOO_COARSE = 2.0
"""Times the step that a value would have by itself."""


def places(
    network: Network, layers: list[fx.Node], all_results: bool
) -> tuple[list[fx.Node], dict[fx.Node, fx.Node]]:
    """The values to round, in order, and for each the value whose range gives its grid."""
    wanted: set[fx.Node] = set()
    outputs = {  # of the network
        one for node in network.graph.nodes if node.op == "output" for one in node.all_input_nodes
    }
    last = outputs if all_results else set()
    for node in layers:
        wanted.add(node.args[0])  # type: ignore[arg-type]
    changed = True
    while changed:
        before = len(wanted)
        for node in network.calls():
            edge = _edge(node)
            if edge in outputs - last:
                continue
            if node in layers and (all_results or node.target in CONVOLUTIONS):
                wanted.add(edge)
            elif node in layers or node.target in JOINED | PASSING:
                inputs = [one for one in node.all_input_nodes if one.op != "get_attr"]
                ready = all(_edge(one) in wanted or one in wanted for one in inputs)
                feeds = edge in last or _feeds_integers(edge, layers)
                if feeds and (ready or node in layers):
                    wanted.add(edge)
                    wanted.update(one for one in inputs if node.target not in LAYERS)
        changed = len(wanted) > before
    order = [node for node in network.graph.nodes if node in wanted]
    grids: dict[fx.Node, fx.Node] = {}
    for node in order:
        source = node.args[0] if node.target in PASSING else None
        grids[node] = grids.get(source, node) if isinstance(source, fx.Node) else node
    return order, grids


def _edge(node: fx.Node) -> fx.Node:
    """Where a layer's or sum's result is rounded: behind the clamp that alone reads it."""
    if node.target in LAYERS | SUMS and len(node.users) == 1:
        user = next(iter(node.users))
        if user.target in CLAMPS:
            return user
    return node


def _feeds_integers(edge: fx.Node, layers: list[fx.Node]) -> bool:
    """Whether an operator that computes on integers reads it."""
    return any(user in layers or user.target in JOINED | PASSING for user in edge.users)


def share_when_joined(
    rounded: Sequence[fx.Node],
    roots: dict[fx.Node, fx.Node],
    values: Mapping[fx.Node, Tensor],
    bits: Mapping[fx.Node, int],
) -> dict[fx.Node, list[fx.Node]]:
    """Give a concatenation and its parts one grid, so that joining them rounds nothing again.

    It keeps a grid of its own where one for all would be `TOO_COARSE` for what reads a part, or
    another concatenation of it; where it would begin below zero for a part behind a ReLU, which
    runtimes leave out if the grid cuts off what is negative; and where the bits differ.

    Args:
        rounded: in order.
        roots: by value, that whose range gives its grid; changed.
        values: by root, what calibration samples gave.
        bits: by root.

    Returns:
        By root, the values whose range gives the grid now.
    """
    ends = {root: _ends(values[root]) for root in values}
    needs = _needs(rounded, roots, {root: high - low for root, (low, high) in ends.items()})
    members = {root: [root] for root in values}
    for node in rounded:
        parts = node.all_input_nodes
        if node.target is not CONCATENATION or not all(part in roots for part in parts):
            continue
        joined = sorted({roots[one] for one in (*parts, node)}, key=rounded.index)
        union = [one for root in joined for one in members[root]]
        lows, highs = zip(*(ends[one] for one in union), strict=True)
        coarse = max(highs) - min(lows) > TOO_COARSE * min(needs[one] for one in union)
        positive = any(one.target in CLAMPS and ends[one][0] == 0 for one in union)
        alike = len({bits[root] for root in joined}) == 1 and not (positive and min(lows) < 0)
        if alike and not coarse:
            members[joined[0]] = union
            roots.update({one: joined[0] for one in rounded if roots[one] in joined})
    return members


def _ends(values: Tensor) -> tuple[float, float]:
    """The least and the largest value, zero among them."""
    return min(float(values.min()), 0.0), max(float(values.max()), 0.0)


def _needs(
    rounded: Sequence[fx.Node], roots: Mapping[fx.Node, fx.Node], widths: Mapping[fx.Node, float]
) -> dict[fx.Node, float]:
    """By root, the width of the narrowest range on which it is read, joined or by itself."""
    needs: dict[fx.Node, float] = {}
    for node in reversed(rounded):
        root = roots[node]
        for user in node.users:
            if roots.get(user) is not root:  # else its own readers tell
                joined = user in roots and user.target is CONCATENATION
                width = needs[user] if joined else widths[root]
                needs[root] = min(needs.get(root, width), width)
    return needs
