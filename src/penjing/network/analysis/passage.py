"""Passage: the path of an axis from the one layer that writes it to the layers that read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, fx

from penjing.network.axes.groups import Group, Site
from penjing.network.axes.trace import is_pointwise
from penjing.network.graph.arguments import argument, read_by
from penjing.network.graph.batch_norm import TENSORS
from penjing.network.graph.layers import LAYERS, Layer
from penjing.network.graph.network import Network

aten = torch.ops.aten
UNCHANGED = {
    aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default,
    aten.avg_pool1d.default, aten.avg_pool2d.default, aten.avg_pool3d.default,
    aten.adaptive_avg_pool1d.default, aten.adaptive_avg_pool2d.default,
    aten.adaptive_avg_pool3d.default, aten.mean.dim, aten.dropout.default, aten.dropout_.default,
    aten.feature_dropout.default, aten.flatten.using_ints, aten.reshape.default,
    aten.squeeze.dims, aten.squeeze.dim, aten.permute.default, aten.transpose.int,
    aten.contiguous.default, aten.clone.default,
}  # fmt: skip
"""Operators that treat all channels alike and keep a channel's values within their range."""
ELEMENTWISE = {aten.hardswish.default, aten.hardswish_.default}
"""Elementwise operators that torch doesn't tag as such."""


@dataclass(frozen=True)
class Passage:
    """The path of a layer's output: at most one batch norm, elementwise functions, the readers.

    Attributes:
        layer: the convolution or linear layer whose output the axis is.
        norm: the batch norm with running statistics that follows the layer, or None.
        functions: the elementwise operators on the path, in order.
        readers: the layers at the end, and where the axis is in their weights.
    """

    layer: fx.Node
    norm: fx.Node | None
    functions: tuple[fx.Node, ...]
    readers: tuple[tuple[fx.Node, Site], ...]

    @property
    def function(self) -> Callable[[Tensor], Tensor]:
        """The composition of the elementwise operators on the path."""

        def through(values: Tensor) -> Tensor:
            for node in self.functions:
                call = cast(Callable[..., Tensor], node.target)
                given = values.clone()  # in case the operator writes in place

                def pick(_: fx.Node, given: Tensor = given) -> Tensor:
                    return given

                args, kwargs = fx.map_arg((node.args, node.kwargs), pick)
                values = call(*args, **kwargs)
            return values

        return through


def passage(network: Network, group: Group) -> Passage | str:
    """The passage of an axis, or why it has none."""
    weights = [
        site for site in group.sites if site.dim == 0 and network.tensor(site.tensor).dim() > 1
    ]
    if len(weights) != 1:
        return f"{len(weights)} layers write it"
    if weights[0].expression is not group.axis:
        return "it is only a part of a layer's output"
    nodes = [
        node
        for node in network.calls()
        if node.target in LAYERS and Layer(node).weight_name == weights[0].tensor
    ]
    if len(nodes) != 1 or Layer(nodes[0]).groups != 1:
        return "its layer is used twice or has groups"
    return _follow(network, group, nodes[0])


def _follow(network: Network, group: Group, layer: fx.Node) -> Passage | str:
    parameters = dict(network.named_parameters())
    reading = {
        site.tensor: site
        for site in group.sites
        if site.dim == 1 and site.tensor in parameters and parameters[site.tensor].dim() > 1
    }
    norm: fx.Node | None = None
    ends: list[tuple[fx.Node, Site]] = []
    ways: set[tuple[fx.Node, ...]] = set()
    waiting: list[tuple[fx.Node, tuple[fx.Node, ...]]] = [(user, ()) for user in layer.users]
    while waiting:
        node, functions = waiting.pop()
        if node.target in LAYERS:
            weight = Layer(node).weight_name
            if weight not in reading:
                reader = node.meta.get("layer") or node.name
                return f"{reader} doesn't read it as its input channels"
            ends.append((node, reading[weight]))
            ways.add(functions)
            continue
        if node.target is aten.batch_norm.default and read_by(node) is layer:
            if None in [argument(node, name) for name in TENSORS] or len(layer.users) > 1:
                return "its batch norm has no weights or statistics, or isn't its only reader"
            norm = node
        elif is_function(node):
            functions = (*functions, node)
        elif node.target not in UNCHANGED:
            name = str(node.target).removeprefix("aten.")
            return f"{name} stands between it and the layers that read it"
        waiting += [(user, functions) for user in node.users]
    if {site.tensor for _, site in ends} != set(reading) or len(ways) != 1:
        return "the layers that read it get it through different functions"
    order = {node: place for place, node in enumerate(network.graph.nodes)}
    ends.sort(key=lambda end: order[end[0]])
    return Passage(layer, norm, ways.pop(), tuple(ends))


def is_function(node: fx.Node) -> bool:
    """Whether the node computes each element from a single element of its only input."""
    alone = len(node.all_input_nodes) == 1 and node.all_input_nodes[0].op != "get_attr"
    return alone and (is_pointwise(node.target) or node.target in ELEMENTWISE)
