"""Rows: the inputs and outputs of a layer as matrices with one row per position."""

from __future__ import annotations

import torch
from torch import Tensor, fx
from torch.nn import functional

from penjing.network.graph.layers import Layer

aten = torch.ops.aten
Sizes = tuple[int, ...]
READ_AS_ROWS = {aten.conv1d.default, aten.conv2d.default, aten.linear.default}
"""The layers that `rows_read` supports."""
LARGEST_SYSTEM = 12_000  # unknowns; beyond it, the sums and their factor take over 1 GB each


def why_not_solved(layer: fx.Node, unknowns: int) -> str:
    """Why no linear system can be set up for a layer; empty if it can."""
    if layer.target not in READ_AS_ROWS:
        name = str(layer.target).removeprefix("aten.")
        return f"the operator {name} can't be solved as a linear system"
    if unknowns > LARGEST_SYSTEM:
        return f"its linear system would have {unknowns} unknowns (at most {LARGEST_SYSTEM})"
    return ""


def rows_read(layer: fx.Node, weight: Tensor, x: Tensor) -> Tensor:
    """The inputs of a linear layer, or the windows of a convolution, one row per position.

    Args:
        layer: one of `READ_AS_ROWS`.
        weight: its weight.
        x: its input.

    Returns:
        (positions of all samples, groups x unknowns). Each group has as many unknowns as
        `weight[0]` has numbers, in the same order.
    """
    if layer.target is aten.linear.default:
        return x.flatten(0, -2)
    x, kernel, stride, padding, dilation = _in_two_dimensions(layer, weight, x)
    return functional.unfold(x, kernel, dilation, padding, stride).transpose(1, 2).flatten(0, 1)


def rows_given(layer: fx.Node, y: Tensor) -> Tensor:
    """The outputs of a layer, (positions of all samples, outputs), in the order of `rows_read`."""
    if layer.target is aten.linear.default:
        return y.flatten(0, -2)
    return y.flatten(2).transpose(1, 2).flatten(0, 1)


def sampled(
    layer: fx.Node, weight: Tensor, x: Tensor, y: Tensor, rows: int, draw: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Some rows of `rows_read` and the same rows of `rows_given`, at random if there are more.

    Only the windows that are drawn are copied.

    Args:
        layer: one of `READ_AS_ROWS`.
        weight: its weight.
        x: its input.
        y: its output, or another value of that shape.
        rows: how many rows to return at most.
        draw: draws them, with replacement.
    """
    given = rows_given(layer, y)
    if len(given) <= rows:
        return rows_read(layer, weight, x), given
    index = torch.randint(len(given), (rows,), generator=draw)
    if layer.target is aten.linear.default:
        return x.flatten(0, -2)[index], given[index]
    x, kernel, stride, padding, dilation = _in_two_dimensions(layer, weight, x)
    x = functional.pad(x, (padding[1], padding[1], padding[0], padding[0])).contiguous()
    sides = y.shape[2:] if y.dim() == 4 else (1, y.shape[2])
    sample, channel, down, right = x.stride()
    windows = x.as_strided(
        (*x.shape[:2], *sides, *kernel),
        (sample, channel, down * stride[0], right * stride[1],
         down * dilation[0], right * dilation[1]),
    )  # fmt: skip
    place, column = index // sides[1], index % sides[1]
    return windows[place // sides[0], :, place % sides[0], column].flatten(1), given[index]


def _in_two_dimensions(
    layer: fx.Node, weight: Tensor, x: Tensor
) -> tuple[Tensor, Sizes, Sizes, Sizes, Sizes]:
    """The input of a convolution, its kernel's sides, stride, padding and dilation.

    One dimension is treated as two, the first of size 1.
    """
    kernel, view = tuple(weight.shape[2:]), Layer(layer)
    stride, padding, dilation = view.stride, view.padding, view.dilation
    assert not isinstance(padding, str)
    if len(kernel) == 1:
        return x.unsqueeze(2), (1, *kernel), (1, *stride), (0, *padding), (1, *dilation)
    return x, kernel, stride, padding, dilation
