"""As convolutions: operators that only move or average values, written as layers; same numbers.

LiteRT, TOSA and the compilers behind them compute a layer on integers with any grid at its ends,
but have no integer kernel for some operators that are less than a layer: a shortcut such as
`pad(x[:, :, ::2, ::2], ...)`, a maximum pool with padding, an average pool whose output has a grid
of its own, a hard sigmoid. There the network falls apart into pieces of real numbers. A convolution
whose weights are 0 and 1 (or all 1 / k^2, or 1 / 6) gives the same numbers, rounded or not.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import fx

from penjing.arith.fake_quantize import FAKE_QUANTIZE
from penjing.network.fake_quantized import grid_of
from penjing.network.fold import pool_means
from penjing.network.network import Network
from penjing.network.shapes import shapes
from penjing.network.tensors import set_tensor
from penjing.network.trace import argument

aten = torch.ops.aten
Kind = Literal["moves", "averages", "means", "maxima", "gates"]
"""Slices with a stride and padded channels; average pools between two grids; adaptive ones among
those that give 1 x 1; the padding of pools of maxima over values >= 0; hard sigmoids whose grid
ends at 0 and 1."""
LARGEST = 127
AVERAGES = {aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default}
HARD_SIGMOIDS = {aten.hardsigmoid.default, aten.hardsigmoid_.default}
POSITIVE = {
    aten.relu.default, aten.relu_.default, aten.relu6.default, aten.sigmoid.default
}  # fmt: skip
"""Operators that give no number below 0."""


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


def write_as_layers(network: Network, kinds: Collection[Kind]) -> Network:
    """A copy with pools for means, and convolutions in the place of operators of these kinds."""
    new = copy.deepcopy(network)
    pool_means(new)
    new.compile_graph()
    if _convolve(new, kinds):
        new.compile_graph()
    return new


def write_as_convolutions(network: Network, kinds: Collection[Kind]) -> Network:
    """A copy in which convolutions take the place of operators of these kinds.

    The network itself, if it has nothing of that.
    """
    new = copy.deepcopy(network)
    if not _convolve(new, kinds):
        return network
    new.compile_graph()
    return new


def _convolve(network: Network, kinds: Collection[Kind]) -> bool:
    """Write them in place; whether there was one."""
    known = shapes(network)
    gone: set[fx.Node] = set()
    changed = False
    for node in list(network.calls()):
        if node in gone:
            continue
        if "moves" in kinds and (way := _way(node, known)) is not None:
            gone |= set(_replace(network, node, way, known))
            changed = True
        elif node.target in AVERAGES:
            changed |= _average(network, node, known, kinds)
        elif node.target in HARD_SIGMOIDS and "gates" in kinds:
            changed |= _gate(network, node, known)
        elif node.target is aten.max_pool2d.default and "maxima" in kinds:
            changed |= _pad_before_maximum(network, node, known)
    return changed


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
    with network.graph.inserting_before(way.end):
        new = _convolution(network, first, weight, way.strides, [0, 0])
        if way.end.target is FAKE_QUANTIZE:
            new = _call(network, first, FAKE_QUANTIZE, new, *way.end.args[1:])
    way.end.replace_all_uses_with(new)
    gone = [way.end]
    while gone[-1] is not first:
        gone.append(cast(fx.Node, gone[-1].args[0]))
    for one in gone:
        network.graph.erase_node(one)
    return gone


def _average(
    network: Network, node: fx.Node, known: Mapping[fx.Node, Any], kinds: Collection[Kind]
) -> bool:
    """Write an average pool between two grids as a convolution of k x k weights 1 / k^2."""
    source = cast(fx.Node, node.args[0])
    before, after = grid_of(source), grid_of(next(iter(node.users)))
    if before is None or after is None or len(node.users) > 1 or len(known[node]) != 4:
        return False
    if node.target is aten.adaptive_avg_pool2d.default:
        size, wanted = known[source][2:], known[node][2:]
        whole = list(wanted) == [1, 1]
        if any(a % b for a, b in zip(size, wanted, strict=True)):
            return False
        kernel = [a // b for a, b in zip(size, wanted, strict=True)]
        strides, padding = [1, 1] if whole else kernel, [0, 0]
    else:
        whole = False
        kernel = _pair(node.args[1])
        strides = _pair(argument(node, "stride", None) or kernel)
        padding = _pair(argument(node, "padding", 0))
        counted = argument(node, "count_include_pad", True) or not any(padding)
        if not counted or argument(node, "ceil_mode", False) or argument(node, "divisor_override"):
            return False
    if ("means" if whole else "averages") not in kinds:
        return False
    weight = torch.full((known[source][1], 1, *kernel), 1 / (kernel[0] * kernel[1]))
    with network.graph.inserting_before(node):
        new = _convolution(network, node, weight, strides, padding)
    node.replace_all_uses_with(new)
    network.graph.erase_node(node)
    return True


def _gate(network: Network, node: fx.Node, known: Mapping[fx.Node, Any]) -> bool:
    """Write a hard sigmoid between two grids as the convolution x / 6 + 1 / 2, whose ends its own
    grid cuts off."""
    source = cast(fx.Node, node.args[0])
    before, after = grid_of(source), grid_of(next(iter(node.users)))
    if before is None or after is None or len(node.users) > 1 or len(known[node]) != 4:
        return False
    top = float(network.tensor(after.scale).detach()) * (after.high - after.zero_point)
    if after.zero_point != after.low or top > 1 + torch.finfo(torch.float32).eps:
        return False
    channels = known[source][1]
    with network.graph.inserting_before(node):
        bias = _tensor(network, f"{node.name}_bias", torch.full((channels,), 1 / 2), node)
        weight = torch.full((channels, 1, 1, 1), 1 / 6)
        new = _convolution(network, node, weight, [1, 1], [0, 0], bias)
    node.replace_all_uses_with(new)
    network.graph.erase_node(node)
    return True


def _pad_before_maximum(network: Network, node: fx.Node, known: Mapping[fx.Node, Any]) -> bool:
    """Let a pool of maxima over values >= 0 have no padding of its own: they are padded by zeros,
    which a convolution of weights 1 does on the way."""
    source = cast(fx.Node, node.args[0])
    padding = _pair(argument(node, "padding", 0))
    grid = grid_of(source)
    positive = source.target in POSITIVE or (grid is not None and grid.zero_point == grid.low)
    if not any(padding) or not positive or len(known[source]) != 4:
        return False
    kernel = node.args[1]
    stride = argument(node, "stride", None) or kernel
    dilation, ceil = argument(node, "dilation", 1), argument(node, "ceil_mode", False)
    sizes = known[source][2:], _pair(kernel), _pair(stride), padding, _pair(dilation)
    for size, k, step, pad, d in zip(*sizes, strict=True) if ceil else ():
        if _windows(size, k, step, pad, d) != _windows(size + 2 * pad, k, step, 0, d):
            return False
    weight = torch.ones(known[source][1], 1, 1, 1)
    with network.graph.inserting_before(node):
        new = _convolution(network, node, weight, [1, 1], padding)
        if grid is not None:
            new = _call(network, node, FAKE_QUANTIZE, new, *grid.node.args[1:])
    node.args, node.kwargs = (new, kernel, stride, 0, dilation, ceil), {}
    return True


def _windows(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """How many a pool in ceil mode has; the last one begins before the padding behind."""
    found = -((dilation * (kernel - 1) + 1 - size - 2 * padding) // stride) + 1
    return found - ((found - 1) * stride >= size + padding)


def _convolution(
    network: Network,
    like: fx.Node,
    weight: torch.Tensor,
    strides: list[int],
    padding: list[int],
    bias: fx.Node | None = None,
) -> fx.Node:
    """Convolve what `like` reads; depthwise if the weight has one input channel.

    Its weights are multiples of the largest one, so that their codes are 0 and 1. Where there is a
    bias they are 0 and 127, for the grid of the bias is then as fine as may be.
    """
    source = cast(fx.Node, like.args[0])
    name = f"{like.name}_weight"
    value = _tensor(network, name, weight, like)
    if grid_of(source) is not None:
        largest = 1 if bias is None else LARGEST
        scales = torch.full((len(weight),), float(weight.max()) / largest)
        scale = _tensor(network, f"{name}_scale", scales, like)
        value = _call(network, like, FAKE_QUANTIZE, value, scale, 0, -LARGEST, LARGEST)
    groups = len(weight) if weight.shape[1] == 1 else 1
    dilation = [1, 1]
    return _call(
        network, like, aten.conv2d.default, source, value, bias, strides, padding, dilation, groups
    )


def _call(network: Network, like: fx.Node, target: Any, *arguments: Any) -> fx.Node:
    made = network.graph.call_function(target, arguments)
    made.meta = dict(like.meta)
    return made


def _pair(value: Any) -> list[int]:
    """A size for rows and columns, where one may stand for both."""
    sizes = list(value) if isinstance(value, list | tuple) else [value]
    return sizes * 2 if len(sizes) == 1 else sizes


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
