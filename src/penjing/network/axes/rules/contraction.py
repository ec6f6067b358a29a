"""Contraction: operators that multiply and sum over a shared dimension."""

from __future__ import annotations

from torch import fx

from penjing.network.axes.algebra import Axis, Expression, Product, size
from penjing.network.axes.rules.window import KERNEL, SPATIAL, slide
from penjing.network.axes.trace import Dims, Trace
from penjing.network.graph.arguments import argument, place_of


def linear(trace: Trace, node: fx.Node) -> Dims:
    """x_..I, w_OI, b_O -> y_..O."""
    x, weight = trace.of(node.args[0]), trace.of(node.args[1])
    trace.join(node, x[-1], weight[1])
    _join_bias(trace, node, weight[0])
    return (*x[:-1], weight[0])


def convolution(trace: Trace, node: fx.Node) -> Dims:
    """x_NCs.., w_OIk.., b_O -> y_NOs..; C is groups x I, and O is groups x (O / groups).

    A depthwise convolution has I = 1: its groups are the channels, and shrink with them.
    """
    x, weight = trace.of(node.args[0]), trace.of(node.args[1])
    groups = argument(node, "groups")
    spatial = len(weight) - 2
    channels = x[-spatial - 1]
    for extent in weight[2:]:
        trace.pin(node, (extent,), KERNEL)
    if groups != 1:  # a node of the graph if each sample has its own kernels
        group = Axis(groups if isinstance(groups, int) else size(channels) // size(weight[1]))
        trace.join(node, channels, Product((group, weight[1])))
        trace.join(node, weight[0], Product((group, Axis(size(weight[0]) // group.size))))
        trace.spell(node, (place_of(node, "groups"),), group)
    else:
        trace.join(node, channels, weight[1])
    _join_bias(trace, node, weight[0])
    extents = slide(trace, node, x[-spatial:], trace.shape(node)[-spatial:])
    return (*x[: -spatial - 1], weight[0], *extents)


def transposed_convolution(trace: Trace, node: fx.Node) -> Dims:
    """x_NCs.., w_COk.., b -> y_NDt..: C is groups x width, D is groups x O."""
    x, weight = trace.of(node.args[0]), trace.of(node.args[1])
    groups = argument(node, "groups")
    assert isinstance(groups, int)
    spatial = len(weight) - 2
    trace.pin(node, weight[2:], KERNEL)
    trace.join(node, x[-spatial - 1], weight[0])
    outputs: Expression = weight[1]
    if groups > 1:
        group = Axis(groups)
        trace.join(node, weight[0], Product((group, Axis(size(weight[0]) // groups))))
        trace.spell(node, (place_of(node, "groups"),), group)
        outputs = Product((group, weight[1]))
    _join_bias(trace, node, outputs)
    trace.pin(node, x[-spatial:], SPATIAL)
    extents = trace.fixed(node, SPATIAL, trace.shape(node)[-spatial:])
    return (*x[: -spatial - 1], outputs, *extents)


def einsum(trace: Trace, node: fx.Node) -> Dims:
    """Each letter is one dimension wherever it appears; `...` are common leading dimensions."""
    equation, operands = node.args[0], [trace.of(operand) for operand in node.args[1]]  # type: ignore[union-attr]
    assert isinstance(equation, str)
    left, arrow, right = equation.replace(" ", "").partition("->")
    letters: dict[str, Expression] = {}
    rest: Dims = ()
    for term, dims in zip(left.split(","), operands, strict=True):
        before, dots, after = term.partition("...")
        middle = len(dims) - len(before) - len(after)
        named = [*zip(before, dims, strict=False)]
        named += [*zip(after, dims[len(dims) - len(after) :], strict=True)] if dots else []
        for letter, dim in named:
            known = letters.setdefault(letter, dim)
            if size(known) == size(dim):
                trace.join(node, known, dim)
            elif size(known) == 1:
                letters[letter] = dim
        if dots:
            rest = broadcast(trace, node, rest, dims[len(before) : len(before) + middle])
    if not arrow:
        once = sorted(letter for letter in letters if left.count(letter) == 1)
        right = ("..." if rest else "") + "".join(once)
    before, dots, after = right.partition("...")
    ends = tuple(letters[letter] for letter in before), tuple(letters[letter] for letter in after)
    return (*ends[0], *(rest if dots else ()), *ends[1])


def added_product(trace: Trace, node: fx.Node) -> Dims:
    """c + a b, with c broadcast to the product."""
    a, b = trace.of(node.args[1]), trace.of(node.args[2])
    trace.join(node, a[-1], b[-2])
    lead = broadcast(trace, node, a[:-2], b[:-2])
    return broadcast(trace, node, (*lead, a[-2], b[-1]), trace.of(node.args[0]))


def bilinear(trace: Trace, node: fx.Node) -> Dims:
    """x_..I, z_..J, w_OIJ, b_O -> y_..O."""
    x, z, weight = (trace.of(operand) for operand in node.args[:3])
    trace.join(node, x[-1], weight[1])
    trace.join(node, z[-1], weight[2])
    _join_bias(trace, node, weight[0])
    return (*broadcast(trace, node, x[:-1], z[:-1]), weight[0])


def matmul(trace: Trace, node: fx.Node) -> Dims:
    """a_..mk, b_..kn -> y_..mn; leading dimensions broadcast."""
    a, b = trace.of(node.args[0]), trace.of(node.args[1])
    trace.join(node, a[-1], b[-2] if len(b) > 1 else b[-1])
    lead = broadcast(trace, node, a[:-2], b[:-2])
    return (*lead, *a[-2:-1], *(b[-1:] if len(b) > 1 else ()))


def attention(trace: Trace, node: fx.Node) -> Dims:
    """q_..qd, k_..kd, v_..ke -> y_..qe: q and k share the width d, and v has its own width e."""
    q, k, v = (trace.of(operand) for operand in node.args[:3])
    trace.join(node, q[-1], k[-1])
    trace.join(node, k[-2], v[-2])
    trace.pin(node, (k[-2],), "a softmax normalizes over it")
    if argument(node, "enable_gqa") and size(q[-3]) > size(k[-3]):  # several heads share a key
        shared = size(q[-3]) // size(k[-3])
        trace.join(node, k[-3], v[-3])
        trace.join(node, q[-3], Product((k[-3], Axis(shared))))
        lead = broadcast(trace, node, broadcast(trace, node, q[:-3], k[:-3]), v[:-3])
        lead = (*lead, q[-3])
    else:
        lead = broadcast(trace, node, broadcast(trace, node, q[:-2], k[:-2]), v[:-2])
    mask = argument(node, "attn_mask")
    if isinstance(mask, fx.Node):
        broadcast(trace, node, (*lead, q[-2], k[-2]), trace.of(mask))
    return (*lead, q[-2], v[-1])


def distances(trace: Trace, node: fx.Node) -> Dims:
    """a_..mk, b_..nk -> y_..mn: a removed index of k counts as equal in a and b."""
    a, b = trace.of(node.args[0]), trace.of(node.args[1])
    trace.join(node, a[-1], b[-1])
    return (*broadcast(trace, node, a[:-2], b[:-2]), a[-2], b[-2])


def broadcast(trace: Trace, node: fx.Node, a: Dims, b: Dims) -> Dims:
    """The leading dimensions of both, aligned from the right; size 1 stretches."""
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    lead = list(longer)
    for position in range(1, len(shorter) + 1):
        dim, other = lead[-position], shorter[-position]
        if size(dim) == size(other):
            trace.join(node, dim, other)
        elif size(dim) == 1:
            lead[-position] = other
    return tuple(lead)


def _join_bias(trace: Trace, node: fx.Node, outputs: Expression) -> None:
    """Join the bias, if there is one, with the outputs."""
    bias = argument(node, "bias")
    if isinstance(bias, fx.Node):
        trace.join(node, trace.of(bias)[0], outputs)
