"""Operators that multiply and sum over a shared dimension."""

from __future__ import annotations

from torch import fx

from penjing.network.axes import Axis, Product, pin, size
from penjing.network.trace import Dims, Trace


def linear(trace: Trace, node: fx.Node) -> Dims:
    """x_..I, w_OI, b_O -> y_..O."""
    x, weight = trace.of(node.args[0]), trace.of(node.args[1])
    trace.join(node, x[-1], weight[1])
    if len(node.args) > 2 and node.args[2] is not None:
        trace.join(node, trace.of(node.args[2])[0], weight[0])
    return (*x[:-1], weight[0])


def convolution(trace: Trace, node: fx.Node) -> Dims:
    """x_NCs.., w_OIk.., b_O -> y_NOs..; channels are groups x I, outputs groups x (O / groups).

    A depthwise convolution is the case I = 1: its groups are the channels, and shrink with them.
    """
    x, weight = trace.of(node.args[0]), trace.of(node.args[1])
    position = 6
    groups = node.args[position] if len(node.args) > position else node.kwargs.get("groups", 1)
    assert isinstance(groups, int)
    spatial = len(weight) - 2
    channels = x[-spatial - 1]
    for one in weight[2:]:
        trace.pin(node, (one,), "a kernel's extent")
    if groups > 1:
        group = Axis(groups)
        trace.join(node, channels, Product((group, weight[1])))
        trace.join(node, weight[0], Product((group, Axis(size(weight[0]) // groups))))
        trace.spell(node, (position,) if len(node.args) > position else ("groups",), group)
    else:
        trace.join(node, channels, weight[1])
    if len(node.args) > 2 and node.args[2] is not None:
        trace.join(node, trace.of(node.args[2])[0], weight[0])
    shape = trace.shape(node)
    return (
        *x[: -spatial - 1],
        weight[0],
        *trace.fixed(node, "a spatial extent", shape[-spatial:]),
    )


def matmul(trace: Trace, node: fx.Node) -> Dims:
    """a_..mk, b_..kn -> y_..mn; leading dimensions broadcast."""
    a, b = trace.of(node.args[0]), trace.of(node.args[1])
    trace.join(node, a[-1], b[-2] if len(b) > 1 else b[-1])
    lead = _broadcast(trace, node, a[:-2], b[:-2])
    return (*lead, *a[-2:-1], *(b[-1:] if len(b) > 1 else ()))


def attention(trace: Trace, node: fx.Node) -> Dims:
    """q_..qd, k_..kd, v_..ke -> y_..qe: widths d of q and k are one, that of v is its own."""
    q, k, v = (trace.of(one) for one in node.args[:3])
    trace.join(node, q[-1], k[-1])
    trace.join(node, k[-2], v[-2])
    trace.pin(node, (k[-2],), "softmax normalises over it")
    mask = node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")
    if isinstance(mask, fx.Node):
        for dim in trace.of(mask):
            pin(dim, trace.pin_of(node, "an attention mask spans it"))
    lead = _broadcast(trace, node, _broadcast(trace, node, q[:-2], k[:-2]), v[:-2])
    return (*lead, q[-2], v[-1])


def _broadcast(trace: Trace, node: fx.Node, a: Dims, b: Dims) -> Dims:
    """Leading dimensions of both, aligned from the right; size 1 stretches."""
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    lead = list(longer)
    for position in range(1, len(shorter) + 1):
        one, other = lead[-position], shorter[-position]
        if size(one) == size(other):
            trace.join(node, one, other)
        elif size(one) == 1:
            lead[-position] = other
    return tuple(lead)
