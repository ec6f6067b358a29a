"""Our own operators that round: what they round keeps its dimensions, and scales go with its rows.

Ternary and binary codes are rounded so that no weight is next to nothing by itself. What an axis
that such a layer reads gives up is felt by the codes that stay, so it is marked as mixed.
"""

from __future__ import annotations

from torch import fx

from penjing.network.axes.algebra import Axis, Product, size
from penjing.network.axes.trace import Dims, Trace


def fake_quantize(trace: Trace, node: fx.Node) -> Dims:
    """x_.. with one scale, x_O.. with scale_O, or x_OK with scale_OG: K is groups x width.

    Groups are dropped whole, for each has a scale of its own and kernels want them alike.
    """
    x, scale = trace.of(node.args[0]), trace.of(node.args[1])
    _with_rows(trace, node, x, scale)
    if len(scale) > 1:
        row = Product(x[1:])
        width = Axis(size(row) // size(scale[1]))
        trace.pin(node, (width,), "a group of weights with one scale")
        trace.join(node, row, Product((scale[1], width)))
    return x


def ternarize(trace: Trace, node: fx.Node) -> Dims:
    """w_O.. with a positive and a negative scale_O; its threshold is a mean over each row."""
    weight = trace.of(node.args[0])
    for scale in node.args[1:3]:
        _with_rows(trace, node, weight, trace.of(scale))
    trace.mix(node, weight[1:], "ternary codes go by the mean of a row of weights")
    return weight


def binarize(trace: Trace, node: fx.Node) -> Dims:
    """w_O.. with scale_O or none; a weight of next to nothing counts as much as any other."""
    weight = trace.of(node.args[0])
    if len(node.args) > 1:
        _with_rows(trace, node, weight, trace.of(node.args[1]))
    trace.mix(node, weight[1:], "binary weights all count alike")
    return weight


def _with_rows(trace: Trace, node: fx.Node, x: Dims, scale: Dims) -> None:
    """One scale (or one list of them) for each row; a scale of no dimension serves all."""
    if scale:
        trace.join(node, x[0], scale[0])
