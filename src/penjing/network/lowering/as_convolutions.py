"""As convolutions: rewrite operators that only move or average values as convolutions.

LiteRT, TOSA and the compilers behind them compute a layer on integers, whatever the quantization
parameters of its input and output are. They have no integer kernel for some simpler operators: a
shortcut such as `pad(x[:, :, ::2, ::2], ...)`, a max pool with padding, an average pool whose
output has other quantization parameters than its input, or a hard sigmoid. There, parts of the
network would run in float. A convolution with weights 0 and 1 (or all 1 / k^2, or 1 / 6) computes
the same numbers, quantized or not.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from penjing.arith.fake_quantize import FAKE_QUANTIZE
from penjing.network.graph.arguments import argument, read_by
from penjing.network.graph.network import Network
from penjing.network.graph.qparams import qparams_of
from penjing.network.graph.shapes import shapes
from penjing.network.graph.surgery import become, insert_before, replace
from penjing.network.graph.tensors import insert_tensor
from penjing.network.lowering.form import Kind

aten = torch.ops.aten
LARGEST = 127
AVERAGES = {aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default}
HARD_SIGMOIDS = {aten.hardsigmoid.default, aten.hardsigmoid_.default}
POSITIVE = {
    aten.relu.default, aten.relu_.default, aten.relu6.default, aten.sigmoid.default
}  # fmt: skip
"""Operators whose results aren't negative."""


@dataclass
class _Way:
    """The effect of a chain of slices and pads on x_NCHW.

    Attributes:
        end: the last node of the chain.
        strides: the strides of rows and columns.
        before, after: the number of channels of zeros that are added in front and behind.
    """

    end: fx.Node
    strides: list[int]
    before: int = 0
    after: int = 0


def write_as_convolutions(network: Network, kinds: Collection[Kind]) -> Network:
    """A copy in which operators of these kinds are convolutions.

    If the network has no such operator, the network itself is returned.
    """
    new = copy.deepcopy(network)
    if not _convolve(new, kinds):
        return network
    new.compile_graph()
    return new


def _convolve(network: Network, kinds: Collection[Kind]) -> bool:
    """Rewrite the operators in place; returns whether there was one."""
    known = shapes(network)
    gone: set[fx.Node] = set()
    changed = False
    for node in list(network.calls()):
        if node in gone:
            continue
        if "moves" in kinds and (way := _way(node, known)) is not None:
            gone |= set(_replace_way(network, node, way, known))
            changed = True
        elif node.target in AVERAGES:
            changed |= _average(network, node, known, kinds)
        elif node.target in HARD_SIGMOIDS and "gates" in kinds:
            changed |= _gate(network, node, known)
        elif node.target is aten.max_pool2d.default and "maxima" in kinds:
            changed |= _pad_before_maximum(network, node, known)
    return changed


def _way(first: fx.Node, known: Mapping[fx.Node, Any]) -> _Way | None:
    """The longest chain from `first` on, in which each node is the only reader of the last."""
    way: _Way | None = None
    node: fx.Node | None = first
    while node is not None and len(known.get(node, ())) == 4:
        if node.target is FAKE_QUANTIZE:
            if way is None or not _share_scale(node, read_by(first)):
                break
            way.end = node
        elif node.target is aten.slice.Tensor and (stride := _stride(node, known)) is not None:
            way = way or _Way(node, [1, 1])
            if way.before or way.after:
                break
            dim, step = stride
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


def _share_scale(value: fx.Node, other: fx.Node) -> bool:
    """Whether two values are quantized with the same scale."""
    first, second = qparams_of(value), qparams_of(other)
    return first is not None and second is not None and first.scale == second.scale


def _stride(node: fx.Node, known: Mapping[fx.Node, Any]) -> tuple[int, int] | None:
    """The dimension and step of a slice over all rows or columns; None for any other slice."""
    dim, start, end, step = (argument(node, name) for name in ("dim", "start", "end", "step"))
    size = known[read_by(node)][dim]
    whole = not start and (end is None or (isinstance(end, int) and end >= size))
    return (dim % 4, step) if whole and dim % 4 in (2, 3) else None


def _zeros(node: fx.Node) -> tuple[int, int] | None:
    """The channels of zeros that a pad adds in front and behind; None if it does anything else."""
    sides = list(argument(node, "pad"))
    constant = argument(node, "mode") == "constant" and not argument(node, "value")
    if not constant or len(sides) < 6 or any(sides[:4]) or any(sides[6:]) or min(sides) < 0:
        return None
    return sides[4], sides[5]


def _replace_way(
    network: Network, first: fx.Node, way: _Way, known: Mapping[fx.Node, Any]
) -> list[fx.Node]:
    """Replace a chain by a convolution; returns the nodes that were erased."""
    channels = known[read_by(first)][1]
    alike = not way.before and not way.after
    weight = torch.ones(channels, 1, 1, 1) if alike else _selecting(channels, way)
    new = _convolution(network, first, weight, way.strides, [0, 0])
    if way.end.target is FAKE_QUANTIZE:
        _, *qparams = way.end.args
        new = insert_before(way.end, FAKE_QUANTIZE, new, *qparams, like=first)
    way.end.replace_all_uses_with(new)
    gone = [way.end]
    while gone[-1] is not first:
        gone.append(read_by(gone[-1]))
    for node in gone:
        network.graph.erase_node(node)
    return gone


def _average(
    network: Network, node: fx.Node, known: Mapping[fx.Node, Any], kinds: Collection[Kind]
) -> bool:
    """Rewrite a quantized average pool as a convolution with k x k weights of 1 / k^2."""
    source = read_by(node)
    before, after = qparams_of(source), qparams_of(next(iter(node.users)))
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
        kernel = _pair(argument(node, "kernel_size"))
        strides = _pair(argument(node, "stride") or kernel)
        padding = _pair(argument(node, "padding"))
        counted = argument(node, "count_include_pad") or not any(padding)
        if not counted or argument(node, "ceil_mode") or argument(node, "divisor_override"):
            return False
    if ("means" if whole else "averages") not in kinds:
        return False
    weight = torch.full((known[source][1], 1, *kernel), 1 / (kernel[0] * kernel[1]))
    replace(node, _convolution(network, node, weight, strides, padding))
    return True


def _gate(network: Network, node: fx.Node, known: Mapping[fx.Node, Any]) -> bool:
    """Rewrite a quantized hard sigmoid as the convolution x / 6 + 1 / 2.

    The integer range of the output clamps the result to 0..1.
    """
    source = read_by(node)
    before, after = qparams_of(source), qparams_of(next(iter(node.users)))
    if before is None or after is None or len(node.users) > 1 or len(known[node]) != 4:
        return False
    top = float(network.tensor(after.scale).detach()) * (after.high - after.zero_point)
    if after.zero_point != after.low or top > 1 + torch.finfo(torch.float32).eps:
        return False
    channels = known[source][1]
    bias = insert_tensor(network, node, f"{node.name}_bias", torch.full((channels,), 1 / 2))
    weight = torch.full((channels, 1, 1, 1), 1 / 6)
    replace(node, _convolution(network, node, weight, [1, 1], [0, 0], bias))
    return True


def _pad_before_maximum(network: Network, node: fx.Node, known: Mapping[fx.Node, Any]) -> bool:
    """Rewrite the padding of a max pool over values >= 0 as the zero padding of a convolution.

    The convolution has weights of 1 and stands in front of the pool.
    """
    source = read_by(node)
    padding = _pair(argument(node, "padding"))
    qparams = qparams_of(source)
    positive = source.target in POSITIVE or (
        qparams is not None and qparams.zero_point == qparams.low
    )
    if not any(padding) or not positive or len(known[source]) != 4:
        return False
    kernel = argument(node, "kernel_size")
    stride = argument(node, "stride") or kernel
    dilation, ceil = argument(node, "dilation"), argument(node, "ceil_mode")
    sizes = known[source][2:], _pair(kernel), _pair(stride), padding, _pair(dilation)
    for size, k, step, pad, d in zip(*sizes, strict=True) if ceil else ():
        if _windows(size, k, step, pad, d) != _windows(size + 2 * pad, k, step, 0, d):
            return False
    weight = torch.ones(known[source][1], 1, 1, 1)
    new = _convolution(network, node, weight, [1, 1], padding)
    if qparams is not None:
        _, *steps = qparams.node.args
        new = insert_before(node, FAKE_QUANTIZE, new, *steps)
    become(node, aten.max_pool2d.default, new, kernel, stride, 0, dilation, ceil)
    return True


def _windows(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """The number of windows of a pool in ceil mode; the last starts before the trailing padding."""
    count = -((dilation * (kernel - 1) + 1 - size - 2 * padding) // stride) + 1
    return count - ((count - 1) * stride >= size + padding)


def _convolution(
    network: Network,
    node: fx.Node,
    weight: torch.Tensor,
    strides: list[int],
    padding: list[int],
    bias: fx.Node | None = None,
) -> fx.Node:
    """A convolution of a node's input, in front of the node.

    It is depthwise if the weight has one input channel. The largest weight is the scale, so the
    codes are 0 and 1. With a bias the codes are 0 and 127, which gives the bias the finest scale.
    """
    source = read_by(node)
    name = f"{node.name}_weight"
    value = insert_tensor(network, node, name, weight)
    if qparams_of(source) is not None:
        largest = 1 if bias is None else LARGEST
        scales = torch.full((len(weight),), float(weight.max()) / largest)
        scale = insert_tensor(network, node, f"{name}_scale", scales)
        value = insert_before(node, FAKE_QUANTIZE, value, scale, 0, -LARGEST, LARGEST)
    groups = len(weight) if weight.shape[1] == 1 else 1
    options = (strides, padding, [1, 1], groups)
    return insert_before(node, aten.conv2d.default, source, value, bias, *options)


def _pair(value: Any) -> list[int]:
    """A size for rows and one for columns; a single number stands for both."""
    sizes = list(value) if isinstance(value, list | tuple) else [value]
    return sizes * 2 if len(sizes) == 1 else sizes


def _selecting(channels: int, way: _Way) -> torch.Tensor:
    """w_OI11 that copies channel i to way.before + i and gives zeros in all other channels."""
    weight = torch.zeros(way.before + channels + way.after, channels)
    weight[way.before : way.before + channels] = torch.eye(channels)
    return weight[:, :, None, None]
