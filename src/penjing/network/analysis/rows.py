"""Rows: what a layer multiplies its weight with, and what it gives, one row for each position."""

from __future__ import annotations

import torch
from torch import Tensor, fx
from torch.nn import functional

from penjing.network.graph.layers import Layer

aten = torch.ops.aten
READ_AS_ROWS = {aten.conv1d.default, aten.conv2d.default, aten.linear.default}
"""The layers that `rows_read` knows."""
LARGEST_SYSTEM = 12_000  # unknowns; more than 1 GB each for the sums and their factor


def why_not_solved(layer: fx.Node, unknowns: int) -> str:
    """Why no system of so many unknowns is set up for a layer; empty if it can be."""
    if layer.target not in READ_AS_ROWS:
        return f"{str(layer.target).removeprefix('aten.')} isn't solved"
    return f"{unknowns} unknowns are too many" if unknowns > LARGEST_SYSTEM else ""


def rows_read(layer: fx.Node, weight: Tensor, x: Tensor) -> Tensor:
    """(positions of all samples, groups x unknowns): a linear layer's inputs, a convolution's
    windows; of each group, as many unknowns as `weight[0]` has numbers, in that order.

    Args:
        layer: one of `READ_AS_ROWS`.
        weight: its weight.
        x: its input.
    """
    if layer.target is aten.linear.default:
        return x.flatten(0, -2)
    kernel, view = weight.shape[2:], Layer(layer)
    stride, padding, dilation = view.stride, view.padding, view.dilation
    assert not isinstance(padding, str)
    if len(kernel) == 1:  # one dimension as two, the first of size 1
        x, kernel = x.unsqueeze(2), torch.Size((1, *kernel))
        stride, padding, dilation = (1, *stride), (0, *padding), (1, *dilation)
    return functional.unfold(x, kernel, dilation, padding, stride).transpose(1, 2).flatten(0, 1)


def rows_given(layer: fx.Node, y: Tensor) -> Tensor:
    """(positions of all samples, outputs), in the order of `rows_read`."""
    if layer.target is aten.linear.default:
        return y.flatten(0, -2)
    return y.flatten(2).transpose(1, 2).flatten(0, 1)
