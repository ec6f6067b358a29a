"""Normalization: norms and PReLU, whose weights lie along the channels."""

from __future__ import annotations

from torch import fx

from penjing.network.axes.algebra import Axis, Product, size
from penjing.network.axes.trace import Dims, Trace, operator_name


def batch_norm(trace: Trace, node: fx.Node) -> Dims:
    """x_NC.. with weight, bias, running mean and variance_C; each channel by itself.

    A norm without running statistics uses those of its input, as weight standardization does.
    """
    dims = trace.of(node.args[0])
    if node.args[3] is None:
        why = "batch norm computes its mean and variance over it"
        trace.mix(node, (dims[0], *dims[2:]), why)
    for tensor in node.args[1:5]:
        for dim in trace.of(tensor):
            trace.join(node, dims[1], dim)
    return dims


def instance_norm(trace: Trace, node: fx.Node) -> Dims:
    """x_NCs.. with weight, bias and statistics_C; each channel of each sample by itself."""
    dims = trace.of(node.args[0])
    trace.mix(node, dims[2:], "instance norm computes its mean and variance over it")
    return batch_norm(trace, node)


def layer_norm(trace: Trace, node: fx.Node) -> Dims:
    """x_..C with weight_C and bias_C; the statistics mix the last dimensions. Also RMS norm."""
    dims = trace.of(node.args[0])
    shape = node.args[1]
    assert isinstance(shape, list | tuple)
    normalized = dims[len(dims) - len(shape) :]
    for tensor in node.args[2:4]:
        for dim, parameter in zip(normalized, trace.of(tensor), strict=False):
            trace.join(node, dim, parameter)
    for position, dim in enumerate(normalized):
        trace.spell(node, (1, position), dim)
    trace.mix(node, normalized, f"{operator_name(node)} computes its statistics over it")
    return dims


def group_norm(trace: Trace, node: fx.Node) -> Dims:
    """x_NC.. with C = groups x width; the statistics mix the channels of a group."""
    dims = trace.of(node.args[0])
    groups = node.args[1]
    assert isinstance(groups, int)
    group, width = Axis(groups), Axis(size(dims[1]) // groups)
    trace.join(node, dims[1], Product((group, width)))
    trace.spell(node, (1,), group)
    for tensor in node.args[2:4]:
        for dim in trace.of(tensor):
            trace.join(node, dims[1], dim)
    trace.mix(node, (width,), "group norm computes its mean and variance over it")
    return dims


def slope(trace: Trace, node: fx.Node) -> Dims:
    """PReLU: x_NC.. with one slope for each channel, or one for all."""
    dims, weight = trace.of(node.args[0]), trace.of(node.args[1])
    if size(weight[0]) > 1:
        trace.join(node, dims[1], weight[0])
    return dims
