"""Reduction: operators that reduce dimensions, or compute a statistic along them."""

from __future__ import annotations

from torch import fx

from penjing.network.axes.algebra import resolve
from penjing.network.axes.trace import Dims, Trace, operator_name
from penjing.network.graph.arguments import argument


def total(trace: Trace, node: fx.Node) -> Dims:
    """A sum or a Euclidean norm: a removed index counts as zero, so the axis may shrink."""
    return _reduced(trace, node, argument(node, "dim"), "")


def statistic(trace: Trace, node: fx.Node) -> Dims:
    """A mean, a variance or an extreme, which changes when the axis shrinks."""
    return _reduced(trace, node, argument(node, "dim"), "is computed over it")


def statistic_with_indices(trace: Trace, node: fx.Node) -> tuple[Dims, ...]:
    """As `statistic`, once for each result."""
    dims = trace.of(node.args[0])
    axis = _axes(argument(node, "dim"), len(dims))
    over = tuple(dims[index] for index in axis)
    if any(user.args[1] == 1 and user.users for user in node.users):
        trace.pin(node, over, f"{operator_name(node)} returns positions in it")
    trace.mix(node, over, f"{operator_name(node)} is computed over it")
    shapes = trace.shapes[node]
    return tuple(_left(trace, node, dims, axis, len(shape)) for shape in shapes)


def several_statistics(trace: Trace, node: fx.Node) -> tuple[Dims, ...]:
    """As `statistic`, for operators with several results, such as variance and mean."""
    dims = trace.of(node.args[0])
    axes = _axes(argument(node, "dim"), len(dims))
    over = tuple(dims[axis] for axis in axes)
    trace.mix(node, over, f"{operator_name(node)} is computed over it")
    return tuple(_left(trace, node, dims, axes, len(shape)) for shape in trace.shapes[node])


def position(trace: Trace, node: fx.Node) -> Dims:
    """The position of an extreme: the dimension keeps its size, or positions would move."""
    dims = trace.of(node.args[0])
    axes = _axes(argument(node, "dim"), len(dims))
    over = tuple(dims[axis] for axis in axes)
    trace.pin(node, over, f"{operator_name(node)} returns positions in it")
    return _left(trace, node, dims, axes, len(trace.shape(node)))


def along(trace: Trace, node: fx.Node) -> Dims:
    """The input's dimensions; a softmax or a running sum changes when its dimension shrinks."""
    dims = trace.of(node.args[0])
    for axis in _axes(argument(node, "dim"), len(dims)):
        trace.mix(node, (dims[axis],), f"{operator_name(node)} is computed along it")
    return dims


def _reduced(trace: Trace, node: fx.Node, chosen: object, why: str) -> Dims:
    dims = trace.of(node.args[0])
    axes = _axes(chosen, len(dims))
    if why:
        trace.mix(node, tuple(dims[axis] for axis in axes), f"{operator_name(node)} {why}")
    return _left(trace, node, dims, axes, len(trace.shape(node)))


def _left(trace: Trace, node: fx.Node, dims: Dims, axes: set[int], rank: int) -> Dims:
    """The dimensions that stay; reduced ones disappear, or have size 1 with `keepdim`."""
    left = [resolve(dim) for position, dim in enumerate(dims) if position not in axes]
    if rank == len(left):
        return tuple(left)
    return tuple(
        trace.fixed(node, "it was reduced to size 1", (1,))[0] if position in axes else dim
        for position, dim in enumerate(dims)
    )


def _axes(chosen: object, rank: int) -> set[int]:
    if isinstance(chosen, int):
        return {chosen % max(rank, 1)}
    given = list(chosen) if isinstance(chosen, list | tuple) and chosen else range(rank)
    return {int(axis) % rank for axis in given}
