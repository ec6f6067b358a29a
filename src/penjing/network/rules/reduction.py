"""Operators that reduce dimensions, or compute a statistic along them."""

from __future__ import annotations

from torch import fx

from penjing.network.axes import resolve
from penjing.network.trace import Dims, Trace


def total(trace: Trace, node: fx.Node) -> Dims:
    """A sum or a Euclidean norm: what is dropped counted as zero, so the axis may shrink."""
    return _reduced(trace, node, _position(node), "")


def statistic(trace: Trace, node: fx.Node) -> Dims:
    """A mean, a variance, an extreme: shrinking the axis changes it."""
    return _reduced(trace, node, _position(node), "is taken over it")


def statistic_with_indices(trace: Trace, node: fx.Node) -> tuple[Dims, ...]:
    """As `statistic`, once for each output."""
    dims = trace.of(node.args[0])
    axis = _axes(node.args[1] if len(node.args) > 1 else -1, len(dims))
    trace.pin(node, tuple(dims[one] for one in axis), f"{node.name} gives positions in it")
    shapes = trace.shapes[node]
    return tuple(_left(trace, node, dims, axis, len(shape)) for shape in shapes)


def along(trace: Trace, node: fx.Node) -> Dims:
    """As the input; a softmax or a running sum along the dimension changes when it shrinks."""
    dims = trace.of(node.args[0])
    chosen = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", -1)
    for axis in _axes(chosen, len(dims)):
        trace.mix(node, (dims[axis],), f"{node.name} is computed along it")
    return dims


def _position(node: fx.Node) -> object:
    """The reduced dimensions, wherever the operator's signature has them."""
    names = [one.name for one in node.target._schema.arguments]  # type: ignore[union-attr]
    if "dim" not in names:
        return None
    place = names.index("dim")
    return node.args[place] if len(node.args) > place else node.kwargs.get("dim")


def _reduced(trace: Trace, node: fx.Node, chosen: object, why: str) -> Dims:
    dims = trace.of(node.args[0])
    axes = _axes(chosen, len(dims))
    if why:
        trace.mix(node, tuple(dims[one] for one in axes), f"{node.name} {why}")
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
    return {int(one) % rank for one in given}
