"""Scaling: divide the output channels of a layer, and multiply in the layers that read them.

The network computes the same function if every function f in between satisfies f(s x) = s f(x) for
s > 0, as ReLU does. Unlike an axis, a channel ends at a depthwise convolution, whose inputs and
outputs have separate scales.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from penjing.arith.fake_quantize import FAKE_QUANTIZE
from penjing.network.graph.arguments import argument, read_by
from penjing.network.graph.layers import CONVOLUTIONS, LAYERS, Layer, layers_of
from penjing.network.graph.network import Network
from penjing.network.graph.shapes import shapes
from penjing.network.graph.surgery import become

aten = torch.ops.aten
RELU6: dict[Any, Any] = {
    aten.hardtanh.default: aten.relu.default, aten.hardtanh_.default: aten.relu_.default,
    aten.relu6.default: aten.relu.default, aten.relu6_.default: aten.relu_.default,
    aten.clamp.default: aten.relu.default, aten.clamp_.default: aten.relu_.default,
}  # fmt: skip
"""The operators that can be a ReLU6, and the ReLU that each becomes without its bound."""
HOMOGENEOUS = {
    aten.relu.default, aten.relu_.default, aten.leaky_relu.default, aten.leaky_relu_.default,
    aten.prelu.default, aten.dropout.default, aten.dropout_.default,
    aten.feature_dropout.default, aten.contiguous.default, aten.clone.default,
}  # fmt: skip
POOLS = {
    aten.max_pool1d.default: 1, aten.max_pool2d.default: 2, aten.max_pool3d.default: 3,
    aten.avg_pool1d.default: 1, aten.avg_pool2d.default: 2, aten.avg_pool3d.default: 3,
    aten.adaptive_avg_pool1d.default: 1, aten.adaptive_avg_pool2d.default: 2,
    aten.adaptive_avg_pool3d.default: 3,
}  # fmt: skip
"""Pools, and the number of their spatial dimensions."""
Place = tuple[int, int]
"""The dimension of a value that has the channels, and the number of adjacent entries of each."""


@dataclass(frozen=True)
class Reach:
    """The output channels of a layer, and everything that reads them.

    Attributes:
        layer: the layer.
        readers: the layers that read its channels, and how many adjacent inputs a channel is there.
        bounds: the ReLU6 in between, which would have to lose their bound.
    """

    layer: fx.Node
    readers: tuple[tuple[fx.Node, int], ...]
    bounds: tuple[fx.Node, ...]


def reaches(network: Network) -> dict[fx.Node, Reach | str]:
    """For every layer, in order, where its channels are read, or why they can't be scaled."""
    known = shapes(network)
    layers = layers_of(network)
    return {node: _own_weight(node) or _reach(node, known) for node in layers}


def scale_channels(network: Network, scales: Mapping[str, Sequence[float]]) -> None:
    """Divide the output channels of layers, and multiply where they are read, in place.

    Args:
        network: the network.
        scales: by name of a layer's node, one positive number per output channel.

    Raises:
        ValueError: the channels of a layer can't be scaled.
    """
    by_name = {node.name: reach for node, reach in reaches(network).items()}
    with torch.no_grad():
        for name, factors in scales.items():
            reach = by_name[name]
            if isinstance(reach, str) or reach.bounds:
                raise ValueError(f"{name} can't be scaled: {reach}")
            scale = torch.tensor(factors, dtype=torch.float64, device=network.device)
            for tensor_name in _tensors(reach.layer):
                tensor = network.tensor(tensor_name)
                tensor.copy_(tensor.double() / scale.view(-1, *[1] * (tensor.dim() - 1)))
            for node, _ in reach.readers:
                weight = network.tensor(Layer(node).weight_name)
                read = by_channel(node, weight.double(), len(scale))
                groups, _, inner, _ = read.shape
                weight.copy_((read * scale.view(groups, 1, inner, 1)).view_as(weight))


def lift_bounds(network: Network, nodes: Sequence[str]) -> None:
    """Turn the ReLU6 with these names into ReLUs, in place."""
    wanted = set(nodes)
    for node in network.calls():
        if node.name in wanted:
            become(node, RELU6[node.target], read_by(node))


def by_channel(reader: fx.Node, weight: Tensor, channels: int) -> Tensor:
    """A reader's weight as (groups, outputs of a group, channels of a group, taps)."""
    groups = Layer(reader).groups
    return weight.reshape(groups, len(weight) // groups, channels // groups, -1)


def _own_weight(layer: fx.Node) -> str:
    """Why the tensors of a layer can't be scaled; empty if they can."""
    weight, bias = Layer(layer).weight, Layer(layer).bias
    if weight.target is FAKE_QUANTIZE:
        return "it is quantized already"
    for node in (weight, bias):
        if node is not None and node.op != "get_attr":
            return "its weight or bias is computed"
        if node is not None and len(node.users) > 1:
            return "its weight or bias is shared with another layer"
    return ""


def _reach(layer: fx.Node, known: Mapping[fx.Node, Any]) -> Reach | str:
    readers: list[tuple[fx.Node, int]] = []
    bounds: list[fx.Node] = []
    start = 1 if layer.target in CONVOLUTIONS else len(known[layer]) - 1
    waiting: list[tuple[fx.Node, fx.Node, Place]] = [
        (user, layer, (start, 1)) for user in layer.users
    ]
    while waiting:
        node, source, (dim, each) = waiting.pop()
        if node.op == "output":
            return "its result is an output of the network"
        if node.target in LAYERS:
            place = 1 if node.target in CONVOLUTIONS else len(known[source]) - 1
            if _own_weight(node) or Layer(node).data is not source or place != dim:
                reader = node.meta.get("layer") or node.name
                return f"{reader}, which reads its output, can't be scaled to match"
            readers.append((node, each))
            continue
        after = _after(node, source, (dim, each), known)
        if after is None:
            name = str(node.target).removeprefix("aten.")
            return f"{name} stands between it and the layers that read it"
        if node.target in RELU6:
            bounds.append(node)
        waiting += [(user, node, after) for user in node.users]
    if not readers:
        return "no layer reads its output"
    return Reach(layer, tuple(readers), tuple(bounds))


def _after(
    node: fx.Node, source: fx.Node, place: Place, known: Mapping[fx.Node, Any]
) -> Place | None:
    """The place of the channels behind an operator; None if the operator doesn't allow scaling."""
    (dim, each), given = place, known[source]
    if node.target in HOMOGENEOUS or _is_relu6(node):
        return place
    if node.target in POOLS:
        return place if dim == 1 and len(given) == 2 + POOLS[node.target] else None
    if node.target is aten.mean.dim and argument(node, "dim"):
        gone = {int(axis) % len(given) for axis in argument(node, "dim")}
        if dim in gone:
            return None
        return dim if argument(node, "keepdim") else dim - sum(axis < dim for axis in gone), each
    if node.target in (aten.flatten.using_ints, aten.reshape.default):
        made = known[node]
        if dim == 1 and tuple(made) == (given[0], math.prod(given[1:])):
            return 1, each * math.prod(given[2:])
        return place if tuple(made) == tuple(given) else None
    if node.target is aten.permute.default:
        order = [int(axis) % len(given) for axis in argument(node, "dims")]
        return order.index(dim), each
    return None


def _is_relu6(node: fx.Node) -> bool:
    """Whether the node is min(max(x, 0), 6); another bound may be essential to the network."""
    if node.target in (aten.relu6.default, aten.relu6_.default):
        return True
    return node.target in RELU6 and node.args == (read_by(node), 0, 6) and not node.kwargs


def _tensors(layer: fx.Node) -> list[str]:
    """The names of a layer's weight and, if there is one, its bias."""
    return [
        str(node.target) for node in (Layer(layer).weight, Layer(layer).bias) if node is not None
    ]
