"""Fuse: write an affine part of a network as one convolution or linear layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from penjing.errors import InputError
from penjing.network.analysis.affine import Region, Regions, is_one_layer
from penjing.network.graph.layers import Layer
from penjing.network.graph.network import Network
from penjing.network.graph.shapes import shapes
from penjing.network.graph.surgery import become, erase, insert_before
from penjing.network.graph.tensors import add_bias, drop_unused, set_parameter

aten = torch.ops.aten
CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)


def fuse(network: Network, layers: Mapping[str, str], front: bool) -> None:
    """Write parts of a network as one layer each, in place.

    The last node of a part becomes the layer, under the name of the part's last weight.

    Args:
        network: the network.
        layers: by name of the last node of a part, the name of the value that the part reads.
        front: whether zeros that are read around inner values move to the front of the part. If
            not, a part where that would change the result is refused.

    Raises:
        InputError: the nodes between two names aren't one convolution or linear layer.
    """
    for end_name, source_name in layers.items():
        nodes = {node.name: node for node in network.graph.nodes}
        known = shapes(network)
        fitting = [
            region
            for region in Regions(network, known, front).ending_at(nodes[end_name])
            if region.source.name == source_name and is_one_layer(region, nodes[end_name], known)
        ]
        if not fitting:
            raise InputError(
                f"what lies between {source_name!r} and {end_name!r} isn't one convolution or "
                "linear layer"
            )
        _write(network, fitting[0], nodes[end_name])


def _write(network: Network, region: Region, end: fx.Node) -> None:
    function, last = region.function, region.layers[-1]
    name, sources = Layer(last).weight_name, end.all_input_nodes
    old = network.tensor(name)
    spatial = len(function.taps)
    rows, columns = (size // function.groups for size in function.kernel.shape[:2])
    kernel = torch.cat([
        function.kernel[group * rows : (group + 1) * rows, group * columns : (group + 1) * columns]
        for group in range(function.groups)
    ])  # fmt: skip
    weight = insert_before(end, name, like=last)
    settings: list[Any] = []
    if spatial:
        padding = [-place for place in function.first]
        settings = [list(function.stride), padding, [1] * spatial, function.groups]
    operator = CONVOLUTIONS[spatial - 1] if spatial else aten.linear.default
    become(end, operator, region.source, weight, None, *settings)
    end.meta = dict(last.meta)
    for source in sources:
        if not source.users and source.op == "call_function":
            erase(source)
    drop_unused(network)
    set_parameter(network, name, kernel.to(old.dtype))
    add_bias(network, end, name, function.bias.to(old.dtype))
