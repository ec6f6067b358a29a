"""Rounding: penjing's own operators. The rounded value keeps its dimensions, and scales shrink with
its rows.

Ternary and binary weights depend on their row as a whole, and even a tiny weight counts fully. So
an axis that such a layer reads may shrink, but the remaining weights change, and the axis is marked
as mixed.
"""

from __future__ import annotations

from torch import fx

from penjing.network.axes.algebra import Axis, Product, size
from penjing.network.axes.trace import Dims, Trace


def fake_quantize(trace: Trace, node: fx.Node) -> Dims:
    """x_.. with one scale, x_O.. with scale_O, or x_OK with scale_OG, where K is groups x width.

    Groups are removed as a whole, because each has its own scale and kernels need equal groups.
    """
    x, scale = trace.of(node.args[0]), trace.of(node.args[1])
    _with_rows(trace, node, x, scale)
    if len(scale) > 1:
        row = Product(x[1:])
        width = Axis(size(row) // size(scale[1]))
        trace.pin(node, (width,), "it is the size of a group of weights with one scale")
        trace.join(node, row, Product((scale[1], width)))
    return x


def ternarize(trace: Trace, node: fx.Node) -> Dims:
    """w_O.. with a positive and a negative scale_O; the threshold is a mean over each row."""
    weight = trace.of(node.args[0])
    for scale in node.args[1:3]:
        _with_rows(trace, node, weight, trace.of(scale))
    trace.mix(node, weight[1:], "ternary weights depend on the mean of a row of weights")
    return weight


def binarize(trace: Trace, node: fx.Node) -> Dims:
    """w_O.. with scale_O or none; even a tiny weight counts as much as any other."""
    weight = trace.of(node.args[0])
    if len(node.args) > 1:
        _with_rows(trace, node, weight, trace.of(node.args[1]))
    trace.mix(node, weight[1:], "binary weights all have the same magnitude")
    return weight


def _with_rows(trace: Trace, node: fx.Node, x: Dims, scale: Dims) -> None:
    """Join the rows of x and the scale; a scale without dimensions serves all rows."""
    if scale:
        trace.join(node, x[0], scale[0])
