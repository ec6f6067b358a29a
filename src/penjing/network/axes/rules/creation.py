"""Creation: operators that create tensors."""

from __future__ import annotations

from torch import fx

from penjing.network.axes.algebra import Axis, Expression
from penjing.network.axes.trace import Dims, Trace

FIXED = "it is created with a fixed size"


def uniform(trace: Trace, node: fx.Node) -> Dims:
    """Tensors of zeros, ones, one value or random values.

    Their sizes are numbers in the arguments and can be rewritten, so their dimensions can shrink
    with the dimensions that they meet.
    """
    place = 1 if "new_" in str(node.target) else 0
    sizes = node.args[place]
    assert isinstance(sizes, list | tuple)
    return spelled(trace, node, place, tuple(sizes), trace.shape(node))


def spelled(
    trace: Trace, node: fx.Node, place: int, sizes: tuple[object, ...], shape: tuple[int, ...]
) -> Dims:
    """New dimensions, which are free if their size stands in the arguments at `place`.

    If there are fewer sizes than dimensions, the sizes belong to the last dimensions.
    """
    dims: list[Expression] = []
    missing = len(shape) - len(sizes)
    for position, size in enumerate(shape):
        given = sizes[position - missing] if position >= missing else None
        if isinstance(given, int) and given == size and size > 1:
            axis = Axis(size)
            trace.spell(node, (place, position - missing), axis)
            dims.append(axis)
        else:
            dims += trace.fixed(node, FIXED, (size,))
    return tuple(dims)


def fixed(trace: Trace, node: fx.Node) -> Dims:
    """A ramp or a tensor of coordinates: every index has its own value, so no size can change."""
    return trace.fixed(node, FIXED)


def counted(trace: Trace, node: fx.Node) -> Dims:
    """indices_.. -> one_hot_..V: the number of classes is fixed."""
    classes = trace.fixed(node, "it counts the classes of one_hot", trace.shape(node)[-1:])
    return (*trace.of(node.args[0]), *classes)
