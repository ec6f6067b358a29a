"""Costs: parameters, MACs and activation bytes of each layer, from the graph's shapes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import fx

from penjing.network import Network
from penjing.network.shapes import shapes

aten = torch.ops.aten


@dataclass(frozen=True)
class LayerCost:
    """One operator, for one sample.

    Attributes:
        layer: module path.
        operator: such as `"conv2d"`.
        macs: multiply-accumulates.
        activation_bytes: of its output, in float32.
    """

    layer: str
    operator: str
    params: int
    macs: int
    activation_bytes: int


def costs(network: Network) -> list[LayerCost]:
    """The operators in order; a weight used twice is counted at its first use."""
    known = shapes(network)
    batch = int(torch.utils._pytree.tree_leaves(network.example)[0].shape[0])
    seen: set[str] = set()
    found = []
    for node in network.calls():
        if node not in known or "quantize" in str(node.target):
            continue
        params = 0
        for one in node.all_input_nodes:
            while one.op != "get_attr" and "dequantize_per_channel" in str(one.target):
                one = one.args[0]  # type: ignore[assignment]
            if one.op == "get_attr" and one.target not in seen:
                seen.add(str(one.target))
                if "running_" not in str(one.target):
                    params += network.tensor(str(one.target)).numel()
        size = _elements(known[node]) * 4 // batch
        macs = _macs(node, known) // batch
        name = str(node.target).removeprefix("aten.").split(".")[0].rstrip("_")
        found.append(LayerCost(str(node.meta["layer"]), name, params, macs, size))
    return found


def peak_activation_bytes(network: Network) -> int:
    """The most that lives at once along the graph's order, for one sample, in float32."""
    known = shapes(network)
    batch = int(torch.utils._pytree.tree_leaves(network.example)[0].shape[0])
    nodes = [node for node in network.graph.nodes if node.op in ("placeholder", "call_function")]
    last = {one: node for node in network.graph.nodes for one in node.all_input_nodes}
    live = peak = 0
    sizes = {node: _elements(known[node]) * 4 // batch for node in nodes if node in known}
    for node in nodes:
        live += sizes.get(node, 0)
        peak = max(peak, live)
        live -= sum(sizes.get(one, 0) for one in node.all_input_nodes if last[one] is node)
    return peak


def _elements(shape: Any) -> int:
    if shape and isinstance(shape[0], tuple):
        return sum(math.prod(one) for one in shape)
    return math.prod(shape)


def _macs(node: fx.Node, known: dict[fx.Node, Any]) -> int:
    name = str(node.target).split(".")[1] if "." in str(node.target) else ""
    if name in ("conv1d", "conv2d", "conv3d", "linear"):
        weight = known[cast(fx.Node, node.args[1])]
        return int(math.prod(known[node]) * math.prod(weight[1:]))
    if name in ("matmul", "bmm", "mm"):
        first = known[cast(fx.Node, node.args[0])]
        return int(math.prod(known[node]) * first[-1])
    if name == "scaled_dot_product_attention":
        q, k, v = (known[one] for one in node.args[:3])  # type: ignore[index]
        return int(math.prod(q[:-1]) * k[-2] * (q[-1] + v[-1]))
    return 0
