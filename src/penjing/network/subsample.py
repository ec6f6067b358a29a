"""Subsample: take every s-th row and column, and add channels of zeros, as one convolution.

A shortcut such as `pad(x[:, :, ::2, ::2], ...)` moves values and computes none. Runtimes whose
images are channel-last and whose integers lie in accelerators have no kernel for that, so that the
network falls apart around it. As a 1x1 convolution with weights 0 and 1 it is a layer like others.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import fx

from penjing.arith.fake_quantize import FAKE_QUANTIZE
from penjing.network.fake_quantized import grid_of
from penjing.network.network import Network
from penjing.network.shapes import shapes
from penjing.network.tensors import set_tensor
from penjing.network.trace import argument

aten = torch.ops.aten
LARGEST = 127


@dataclass
class _Way:
    """What a chain of slices and pads does to x_NCHW.

    Attributes:
        end: its last node.
        strides: of rows and columns.
        before, after: channels of zeros that are added.
    """

    end: fx.Node
    strides: list[int]
    before: int = 0
    after: int = 0


def subsample_by_convolutions(network: Network) -> Network:
    """A copy in which convolutions take the place of slices with a stride and of padded channels.

    The same numbers, also where they are rounded: the weights are 0 and 1, of scale 1. The network
    itself, if it has no such slices and pads.
    """
    new = copy.deepcopy(network)
    known = shapes(new)
    names = {node.name for node in new.graph.nodes}
    for node in list(new.calls()):
        if node.name in names and (way := _way(node, known)) is not None:
            names -= {one.name for one in _replace(new, node, way, known)}
    if len(names) == sum(1 for _ in network.graph.nodes):
        return network
    new.compile_graph()
    return new


def _way(first: fx.Node, known: Mapping[fx.Node, Any]) -> _Way | None:
    """The longest chain that starts at `first`, each node the only reader of the one before."""
    way: _Way | None = None
    node: fx.Node | None = first
    start = first.args[0]
    while node is not None and len(known.get(node, ())) == 4:
        if node.target is FAKE_QUANTIZE:
            one, other = grid_of(node), grid_of(start)
            if way is None or one is None or other is None or one.scale != other.scale:
                break
            way.end = node
        elif node.target is aten.slice.Tensor and (found := _stride(node, known)) is not None:
            way = way or _Way(node, [1, 1])
            if way.before or way.after:
                break
            dim, step = found
            way.strides[dim - 2] *= step
            way.end = node
        elif node.target is aten.pad.default and (zeros := _zeros(node)) is not None:
            way = way or _Way(node, [1, 1])
            way.before, way.after = way.before + zeros[0], way.after + zeros[1]
            way.end = node
        else:
            break
        node = next(iter(node.users)) if len(node.users) == 1 else None
    moves = way is not None and (max(way.strides) > 1 or way.before or way.after)
    return way if moves else None


def _stride(node: fx.Node, known: Mapping[fx.Node, Any]) -> tuple[int, int] | None:
    """Dimension and step of a slice of rows or columns that starts at 0 and goes to the end."""
    dim, start, end, step = (
        argument(node, name, default)
        for name, default in (("dim", 0), ("start", None), ("end", None), ("step", 1))
    )
    source = cast(fx.Node, node.args[0])
    size = known[source][dim]
    whole = not start and (end is None or (isinstance(end, int) and end >= size))
    return (dim % 4, step) if whole and dim % 4 in (2, 3) else None


def _zeros(node: fx.Node) -> tuple[int, int] | None:
    """Channels of zeros that a pad adds before and behind, if it does nothing else."""
    sides = list(cast(list[int], node.args[1]))
    constant = argument(node, "mode", "constant") == "constant" and not argument(node, "value", 0)
    if not constant or len(sides) < 6 or any(sides[:4]) or any(sides[6:]) or min(sides) < 0:
        return None
    return sides[4], sides[5]


def _replace(
    network: Network, first: fx.Node, way: _Way, known: Mapping[fx.Node, Any]
) -> list[fx.Node]:
    """Write the convolution; returns the nodes that are gone."""
    source = cast(fx.Node, first.args[0])
    channels = known[source][1]
    alike = not way.before and not way.after
    weight = torch.ones(channels, 1, 1, 1) if alike else _selecting(channels, way)
    name = f"{first.name}_weight"
    grid = grid_of(source)
    with network.graph.inserting_before(way.end):
        value = _tensor(network, name, weight, first)
        if grid is not None:
            scale = _tensor(network, f"{name}_scale", torch.ones(len(weight)), first)
            value = network.graph.call_function(FAKE_QUANTIZE, (value, scale, 0, -LARGEST, LARGEST))
            value.meta = dict(first.meta)
        groups = channels if alike else 1
        new = network.graph.call_function(
            aten.conv2d.default, (source, value, None, way.strides, [0, 0], [1, 1], groups)
        )
        new.meta = dict(first.meta)
        if way.end.target is FAKE_QUANTIZE:
            new = network.graph.call_function(FAKE_QUANTIZE, (new, *way.end.args[1:]))
            new.meta = dict(first.meta)
    way.end.replace_all_uses_with(new)
    gone = [way.end]
    while gone[-1] is not first:
        gone.append(cast(fx.Node, gone[-1].args[0]))
    for one in gone:
        network.graph.erase_node(one)
    return gone


def _selecting(channels: int, way: _Way) -> torch.Tensor:
    """w_OI11 that copies channel i to way.before + i, and gives zeros elsewhere."""
    weight = torch.zeros(way.before + channels + way.after, channels)
    weight[way.before : way.before + channels] = torch.eye(channels)
    return weight[:, :, None, None]


def _tensor(network: Network, name: str, tensor: torch.Tensor, like: fx.Node) -> fx.Node:
    set_tensor(network, name, tensor.to(network.device))
    node = network.graph.get_attr(name)
    node.meta = dict(like.meta)
    return node
