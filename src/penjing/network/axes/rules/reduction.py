"""Operators that reduce dimensions, or compute a statistic along them."""

from __future__ import annotations

from torch import fx

from penjing.network.axes.algebra import resolve
from penjing.network.axes.trace import Dims, Trace
from penjing.network.graph.arguments import argument


def total(trace: Trace, node: fx.Node) -> Dims:
    """A sum or a Euclidean norm: what is dropped counted as zero, so the axis may shrink."""
    return _reduced(trace, node, argument(node, "dim"), "")


def statistic(trace: Trace, node: fx.Node) -> Dims:
    """A mean, a variance, an extreme: shrinking the axis changes it."""
    return _reduced(trace, node, argument(node, "dim"), "is taken over it")


def statistic_with_indices(trace: Trace, node: fx.Node) -> tuple[Dims, ...]:
    """As `statistic`, once for each output."""
    dims = trace.of(node.args[0])
    axis = _axes(argument(node, "dim"), len(dims))
    over = tuple(dims[index] for index in axis)
    if any(user.args[1] == 1 and user.users for user in node.users):
        trace.pin(node, over, f"{node.name} gives positions in it")
    trace.mix(node, over, f"{node.name} is taken over it")
    shapes = trace.shapes[node]
    return tuple(_left(trace, node, dims, axis, len(shape)) for shape in shapes)


def several_statistics(trace: Trace, node: fx.Node) -> tuple[Dims, ...]:
    """As `statistic`, for operators that give several at once (variance and mean)."""
    dims = trace.of(node.args[0])
    axes = _axes(argument(node, "dim"), len(dims))
    trace.mix(node, tuple(dims[axis] for axis in axes), f"{node.name} is taken over it")
    return tuple(_left(trace, node, dims, axes, len(shape)) for shape in trace.shapes[node])


def position(trace: Trace, node: fx.Node) -> Dims:
    """Where the extreme lies: the dimension keeps its size, or the positions would move."""
    dims = trace.of(node.args[0])
    axes = _axes(argument(node, "dim"), len(dims))
    trace.pin(node, tuple(dims[axis] for axis in axes), f"{node.name} gives positions in it")
    return _left(trace, node, dims, axes, len(trace.shape(node)))


def along(trace: Trace, node: fx.Node) -> Dims:
    """As the input; a softmax or a running sum along the dimension changes when it shrinks."""
    dims = trace.of(node.args[0])
    for axis in _axes(argument(node, "dim"), len(dims)):
        trace.mix(node, (dims[axis],), f"{node.name} is computed along it")
    return dims


def _reduced(trace: Trace, node: fx.Node, chosen: object, why: str) -> Dims:
    dims = trace.of(node.args[0])
    axes = _axes(chosen, len(dims))
    if why:
        trace.mix(node, tuple(dims[axis] for axis in axes), f"{node.name} {why}")
    return _left(trace, node, dims, axes, len(trace.shape(node)))


def _left(trace: Trace, node: fx.Node, dims: Dims, axes: set[int], rank: int) -> Dims:
    """The dimensions that stay; the reduced ones vanish, or have size 1 (`keepdim`)."""
    left = [resolve(dim) for position, dim in enumerate(dims) if position not in axes]
    if rank == len(left):
        return tuple(left)
    return tuple(
        trace.fixed(node, "reduced", (1,))[0] if position in axes else dim
        for position, dim in enumerate(dims)
    )


def _axes(chosen: object, rank: int) -> set[int]:
    if isinstance(chosen, int):
        return {chosen % max(rank, 1)}
    given = list(chosen) if isinstance(chosen, list | tuple) and chosen else range(rank)
    return {int(axis) % rank for axis in given}
