"""Indexing: operators that read or write elements by tensors of indices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import fx

from penjing.network.axes.algebra import size
from penjing.network.axes.rules.contraction import broadcast
from penjing.network.axes.trace import Dims, Trace

VOCABULARY = "it is a vocabulary that is looked up by index"
WRITTEN = "elements of it are written by index"


def index_select(trace: Trace, node: fx.Node) -> Dims:
    """x, dimension, indices: the dimension keeps its size, and that of the indices replaces it."""
    dims, axis = list(trace.of(node.args[0])), node.args[1]
    assert isinstance(axis, int)
    trace.pin(node, (dims[axis],), "indices are selected from it")
    where = trace.of(node.args[2])
    dims[axis] = where[0] if where else trace.fixed(node, "it is a selected index", (1,))[0]
    return tuple(dims)


def index(trace: Trace, node: fx.Node) -> Dims:
    """x[i, :, j]: indexed dimensions keep their sizes, and those of the indices replace them."""
    given, left = _indexed(trace, node, "indices are taken from it")
    where = list(given)
    new: Dims = ()
    for indices in given.values():
        new = broadcast(trace, node, new, indices)
    if len(new) != len(trace.shape(node)) - len(left):  # the number of elements isn't known
        why = "a mask picks elements from it"
        trace.pin(node, (*new, *left), why)
        return trace.fixed(node, why)
    together = where == list(range(where[0], where[-1] + 1))
    start = where[0] if together else 0
    return (*left[:start], *new, *left[start:])


def _indexed(trace: Trace, node: fx.Node, why: str) -> tuple[dict[int, Dims], Dims]:
    """The dimensions of the indices by their position, and the dimensions that aren't indexed.

    The indexed dimensions keep their sizes.
    """
    dims, given = trace.of(node.args[0]), cast(Sequence[Any], node.args[1])
    where = [position for position, index in enumerate(given) if index is not None]
    trace.pin(node, tuple(dims[position] for position in where), why)
    left = tuple(dim for position, dim in enumerate(dims) if position not in where)
    return {position: trace.of(given[position]) for position in where}, left


def gather(trace: Trace, node: fx.Node) -> Dims:
    """x, dimension, indices in the shape of the output: the dimension keeps its size.

    Any other dimension of the output is that of x if the sizes are equal.
    """
    dims, axis, where = trace.of(node.args[0]), node.args[1], trace.of(node.args[2])
    assert isinstance(axis, int)
    axis %= len(dims)
    trace.pin(node, (dims[axis],), "elements are gathered from it by index")
    for position, (dim, other) in enumerate(zip(dims, where, strict=True)):
        if position != axis and size(dim) == size(other):
            trace.join(node, dim, other)
        elif position != axis:
            trace.pin(node, (dim,), "elements are gathered from a part of it")
    return where


def embedding(trace: Trace, node: fx.Node) -> Dims:
    """w_VC, i_.. -> y_..C: the vocabulary keeps its size, and the width is an axis."""
    weight, where = trace.of(node.args[0]), trace.of(node.args[1])
    trace.pin(node, (weight[0],), VOCABULARY)
    return (*where, weight[1])


def bag(trace: Trace, node: fx.Node) -> tuple[Dims, ...]:
    """w_VC, indices, offsets_B -> y_BC and internal results: embeddings, summed for each sample."""
    weight = trace.of(node.args[0])
    trace.pin(node, (weight[0],), VOCABULARY)
    first, *others = trace.shapes[node]
    rest = tuple(trace.fixed(node, "it is internal to embedding_bag", shape) for shape in others)
    return ((*trace.fixed(node, "it counts the bags", first[:1]), weight[1]), *rest)


def put(trace: Trace, node: fx.Node) -> Dims:
    """x[i, :, j] = values: an indexed dimension keeps its size.

    Any other dimension is the same as the dimension of the values that is written there.
    """
    given, left = _indexed(trace, node, WRITTEN)
    values = trace.of(node.args[2])
    masks = any(len(indices) > 1 for indices in given.values())  # they cover several dimensions
    if not masks and given and max(given) == len(given) - 1:  # the indexed ones come first
        broadcast(trace, node, left, values[max(len(values) - len(left), 0) :])
        trace.pin(node, values[: max(len(values) - len(left), 0)], WRITTEN)
    else:
        trace.pin(node, (*left, *values), WRITTEN)
    return trace.of(node.args[0])


def scatter(trace: Trace, node: fx.Node) -> Dims:
    """Values, written or added to x at indices along a dimension, which keeps its size.

    Any other dimension is the same in x and in the values if the sizes are equal.
    """
    dims, axis = trace.of(node.args[0]), node.args[1]
    assert isinstance(axis, int)
    axis %= len(dims)
    trace.pin(node, (dims[axis],), WRITTEN)
    for operand in node.args[2:]:
        other = trace.of(operand)
        if len(other) != len(dims):  # the indices of index_add have one dimension
            trace.pin(node, other, "it holds indices to write to")
            continue
        for position, dim in enumerate(other):
            if position != axis and size(dim) == size(dims[position]):
                trace.join(node, dims[position], dim)
            else:
                trace.pin(node, (dim, dims[position]), WRITTEN)
    return dims
