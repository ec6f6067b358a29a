"""Operators that pick indices by tensors of indices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import fx

from penjing.network.axes.algebra import size
from penjing.network.axes.rules.contraction import broadcast
from penjing.network.axes.trace import Dims, Trace


def index_select(trace: Trace, node: fx.Node) -> Dims:
    """x, dimension, indices: the dimension keeps its size, the indices' own takes its place."""
    dims, axis = list(trace.of(node.args[0])), node.args[1]
    assert isinstance(axis, int)
    trace.pin(node, (dims[axis],), "indices are selected from it")
    where = trace.of(node.args[2])
    dims[axis] = where[0] if where else trace.fixed(node, "selected", (1,))[0]
    return tuple(dims)


def index(trace: Trace, node: fx.Node) -> Dims:
    """x[i, :, j]: indexed dimensions keep their sizes; the indices' own stand in their place."""
    given, left = _indexed(trace, node, "indices are taken from it")
    where = list(given)
    new: Dims = ()
    for indices in given.values():
        new = broadcast(trace, node, new, indices)
    if len(new) != len(trace.shape(node)) - len(left):  # a mask picks as many as it has ones
        trace.pin(node, (*new, *left), "picked by a mask")
        return trace.fixed(node, "picked by a mask")
    together = where == list(range(where[0], where[-1] + 1))
    start = where[0] if together else 0
    return (*left[:start], *new, *left[start:])


def _indexed(trace: Trace, node: fx.Node, why: str) -> tuple[dict[int, Dims], Dims]:
    """The indices' own dimensions by the position they stand in, ascending, and the dimensions
    that nothing indexes; those that are indexed keep their sizes."""
    dims, given = trace.of(node.args[0]), cast(Sequence[Any], node.args[1])
    where = [position for position, index in enumerate(given) if index is not None]
    trace.pin(node, tuple(dims[position] for position in where), why)
    left = tuple(dim for position, dim in enumerate(dims) if position not in where)
    return {position: trace.of(given[position]) for position in where}, left


def gather(trace: Trace, node: fx.Node) -> Dims:
    """x, dimension, indices of the output's shape: the dimension keeps its size; the others are
    those of x where they are as large."""
    dims, axis, where = trace.of(node.args[0]), node.args[1], trace.of(node.args[2])
    assert isinstance(axis, int)
    axis %= len(dims)
    trace.pin(node, (dims[axis],), "gathered from by index")
    for position, (dim, other) in enumerate(zip(dims, where, strict=True)):
        if position != axis and size(dim) == size(other):
            trace.join(node, dim, other)
        elif position != axis:
            trace.pin(node, (dim,), "gathered from in part")
    return where


def embedding(trace: Trace, node: fx.Node) -> Dims:
    """w_VC, i_.. -> y_..C: the vocabulary keeps its size, the width is an axis."""
    weight, where = trace.of(node.args[0]), trace.of(node.args[1])
    trace.pin(node, (weight[0],), "a vocabulary, looked up by index")
    return (*where, weight[1])


def bag(trace: Trace, node: fx.Node) -> tuple[Dims, ...]:
    """w_VC, indices, offsets_B -> y_BC (and bookkeeping): embeddings summed up for each sample."""
    weight = trace.of(node.args[0])
    trace.pin(node, (weight[0],), "a vocabulary, looked up by index")
    first, *others = trace.shapes[node]
    rest = tuple(trace.fixed(node, "bookkeeping of a bag", shape) for shape in others)
    return ((*trace.fixed(node, "bags", first[:1]), weight[1]), *rest)


def put(trace: Trace, node: fx.Node) -> Dims:
    """x[i, :, j] = values: a dimension that is indexed keeps its size, any other is one with the
    dimension of the values that goes there."""
    given, left = _indexed(trace, node, "written to by index")
    values = trace.of(node.args[2])
    masks = any(len(indices) > 1 for indices in given.values())  # they cover several dimensions
    if not masks and given and max(given) == len(given) - 1:  # the indexed come first
        broadcast(trace, node, left, values[max(len(values) - len(left), 0) :])
        trace.pin(node, values[: max(len(values) - len(left), 0)], "written by index")
    else:
        trace.pin(node, (*left, *values), "written to by index")
    return trace.of(node.args[0])


def scatter(trace: Trace, node: fx.Node) -> Dims:
    """Values put into x, or added to it, at indices along a dimension, which keeps its size; the
    others are one where they are as large."""
    dims, axis = trace.of(node.args[0]), node.args[1]
    assert isinstance(axis, int)
    axis %= len(dims)
    trace.pin(node, (dims[axis],), "written to by index")
    for operand in node.args[2:]:
        other = trace.of(operand)
        if len(other) != len(dims):  # the indices of index_add lie along one dimension
            trace.pin(node, other, "indices to write to")
            continue
        for position, dim in enumerate(other):
            if position != axis and size(dim) == size(dims[position]):
                trace.join(node, dims[position], dim)
            else:
                trace.pin(node, (dim, dims[position]), "written to by index")
    return dims
