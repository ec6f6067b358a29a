"""Operators that keep the dimensions they are given, or reduce some of them."""

from __future__ import annotations

from torch import fx

from penjing.network.axes import Expression, resolve, size
from penjing.network.trace import Dims, Trace


def same(trace: Trace, node: fx.Node) -> Dims:
    """The first argument's dimensions."""
    return trace.of(node.args[0])


def pointwise(trace: Trace, node: fx.Node) -> Dims:
    """Broadcast: aligned from the right, dimensions of equal size are one; size 1 stretches."""
    inputs = [trace.of(one) for one in node.all_input_nodes]
    result: list[Expression] = []
    for position in range(1, len(trace.shape(node)) + 1):
        wide = [dims[-position] for dims in inputs if len(dims) >= position]
        wide = [dim for dim in wide if size(dim) == trace.shape(node)[-position]]
        for other in wide[1:]:
            trace.join(node, wide[0], other)
        result.append(wide[0])
    return tuple(reversed(result))


def softmax(trace: Trace, node: fx.Node) -> Dims:
    """As the input; the normalised dimension keeps its size."""
    dims = trace.of(node.args[0])
    axis = node.args[1]
    assert isinstance(axis, int)
    trace.pin(node, (dims[axis],), "softmax normalises over it")
    return dims


def reduction(trace: Trace, node: fx.Node) -> Dims:
    """The reduced dimensions keep their sizes and vanish, or stay with size 1 (`keepdim`)."""
    dims = trace.of(node.args[0])
    chosen = node.args[1] if len(node.args) > 1 else ()
    given = [chosen] if isinstance(chosen, int) else list(chosen or range(len(dims)))  # type: ignore[arg-type]
    axes = {int(one) % len(dims) for one in given}
    trace.pin(node, tuple(dims[one] for one in axes), f"{node.name} reduces over it")
    left = [resolve(dim) for position, dim in enumerate(dims) if position not in axes]
    if len(trace.shape(node)) == len(left):
        return tuple(left)
    return tuple(
        trace.fixed(node, "reduced", (1,))[0] if position in axes else dim
        for position, dim in enumerate(dims)
    )
