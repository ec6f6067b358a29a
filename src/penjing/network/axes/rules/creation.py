"""Operators that make tensors out of nothing."""

from __future__ import annotations

from torch import fx

from penjing.network.axes.algebra import Axis, Expression
from penjing.network.axes.trace import Dims, Trace


def uniform(trace: Trace, node: fx.Node) -> Dims:
    """Zeros, ones, one value everywhere: each size is a number in the arguments, which can be
    rewritten, so the dimension shrinks with whatever it meets."""
    place = 1 if "new_" in str(node.target) else 0
    sizes = node.args[place]  # of random values alike: they are as good with fewer of them
    assert isinstance(sizes, list | tuple)
    return spelled(trace, node, place, tuple(sizes), trace.shape(node))


def spelled(
    trace: Trace, node: fx.Node, place: int, sizes: tuple[object, ...], shape: tuple[int, ...]
) -> Dims:
    """Fresh dimensions; those whose size stands in the arguments at `place` are free.

    Where there are fewer sizes than dimensions, they are those of the last dimensions.
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
            dims += trace.fixed(node, "made with a fixed size", (size,))
    return tuple(dims)


def fixed(trace: Trace, node: fx.Node) -> Dims:
    """A ramp, a grid, random values: every index is its own, so no size can change."""
    return trace.fixed(node, "made with a fixed size")


def counted(trace: Trace, node: fx.Node) -> Dims:
    """Indices_.. -> ones and zeros_..V: the number of classes is fixed."""
    return (*trace.of(node.args[0]), *trace.fixed(node, "classes", trace.shape(node)[-1:]))
