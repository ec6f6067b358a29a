"""Rows: the inputs and outputs of a layer as matrices with one row per position."""

from __future__ import annotations

import torch
from torch import Tensor, fx
from torch.nn import functional

from penjing.network.graph.layers import Layer

aten = torch.ops.aten
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
    kernel, view = weight.shape[2:], Layer(layer)
    stride, padding, dilation = view.stride, view.padding, view.dilation
    assert not isinstance(padding, str)
    if len(kernel) == 1:  # treat one dimension as two, the first of size 1
        x, kernel = x.unsqueeze(2), torch.Size((1, *kernel))
        stride, padding, dilation = (1, *stride), (0, *padding), (1, *dilation)
    return functional.unfold(x, kernel, dilation, padding, stride).transpose(1, 2).flatten(0, 1)


def rows_given(layer: fx.Node, y: Tensor) -> Tensor:
    """The outputs of a layer, (positions of all samples, outputs), in the order of `rows_read`."""
    if layer.target is aten.linear.default:
        return y.flatten(0, -2)
    return y.flatten(2).transpose(1, 2).flatten(0, 1)


def sampled(x: Tensor, y: Tensor, rows: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """At most so many rows of two matrices, the same of both, drawn at random."""
    if len(x) <= rows:
        return x, y
    index = torch.randint(len(x), (rows,), generator=draw)
    return x[index], y[index]
