"""Shaping: operators that only rearrange values, such as reshape, permute, cat, split and pad."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from penjing.network.axes.algebra import Axis, Concat, Expression, Product, resolve, size, split
from penjing.network.axes.rules.creation import spelled
from penjing.network.axes.trace import Dims, Trace, operator_name
from penjing.network.graph.arguments import argument

PIXELS = "it counts the pixels that a pixel shuffle takes from a channel"
SPATIAL = "it is a spatial extent"
UNBOUND = "unbind takes it apart"
STEPS = "a slice takes it in steps"


def reshape(trace: Trace, node: fx.Node) -> Dims:
    """Flatten runs of the input's dimensions and split each product into the new dimensions."""
    dims, wanted = list(trace.of(node.args[0])), list(trace.shape(node))
    result: list[Expression] = []
    while dims or wanted:
        taken = [dims.pop(0)] if dims else []
        cut = [wanted.pop(0)] if wanted else []
        while (have := size(Product(tuple(taken))) if taken else 1) != (need := math.prod(cut)):
            if have < need:
                taken.append(dims.pop(0))
            else:
                cut.append(wanted.pop(0))
        result += _cut(trace, node, taken, cut)
    _spell_sizes(trace, node, tuple(result))
    return tuple(result)


def _cut(
    trace: Trace, node: fx.Node, taken: list[Expression], sizes: list[int]
) -> list[Expression]:
    """Split one run of dimensions into new dimensions of these sizes."""
    rest: Expression = Product(tuple(taken)) if taken else Axis(1)
    result: list[Expression] = []
    for position, wanted in enumerate(sizes):
        if wanted == size(rest) and all(later == 1 for later in sizes[position + 1 :]):
            result.append(resolve(rest))
            rest = Axis(1)
            continue
        halves = (Axis(1), rest) if wanted == 1 else split(rest, wanted, Product)
        if halves is None:
            why = f"{operator_name(node)} splits it into unequal pieces"
            trace.pin(node, tuple(taken), why)
            return list(trace.fixed(node, why, tuple(sizes)))
        result.append(resolve(halves[0]))
        rest = halves[1]
    return result


def _spell_sizes(trace: Trace, node: fx.Node, dims: Dims) -> None:
    if node.target is torch.ops.aten.unflatten.int:
        first, count = node.args[1], len(node.args[2])  # type: ignore[arg-type]
        start = int(first) % (len(dims) - count + 1)  # type: ignore[arg-type]
        for offset in range(count):
            trace.spell(node, (2, offset), dims[start + offset])
    elif node.target is torch.ops.aten.reshape.default:
        sizes = node.args[1]
        assert isinstance(sizes, list | tuple)
        for position in range(len(sizes)):
            trace.spell(node, (1, position), dims[position])


def permute(trace: Trace, node: fx.Node) -> Dims:
    """The dimensions in the given order."""
    dims, order = trace.of(node.args[0]), node.args[1]
    assert isinstance(order, list | tuple)
    return tuple(dims[int(axis)] for axis in order)  # type: ignore[arg-type]


def transpose(trace: Trace, node: fx.Node) -> Dims:
    """Two dimensions change places."""
    dims = list(trace.of(node.args[0]))
    first, second = (int(axis) for axis in node.args[1:3]) if len(node.args) > 2 else (-2, -1)  # type: ignore[arg-type]
    if len(dims) > 1:
        dims[first], dims[second] = dims[second], dims[first]
    return tuple(dims)


def expand(trace: Trace, node: fx.Node) -> Dims:
    """Stretch dimensions of size 1. All indices are alike, so they shrink with what they meet."""
    dims, shape = trace.of(node.args[0]), trace.shape(node)
    stretched = spelled(trace, node, 1, tuple(node.args[1]), shape)  # type: ignore[arg-type]
    new = len(shape) - len(dims)
    result = list(stretched[:new])
    for position, dim in enumerate(dims, start=new):
        same = size(dim) == shape[position]
        if same:
            trace.spell(node, (1, position), dim)
        result.append(dim if same else stretched[position])
    return tuple(result)


def repeat(trace: Trace, node: fx.Node) -> Dims:
    """Copies side by side: a dimension becomes (copies x dimension), or copies if its size is 1."""
    dims, times, shape = trace.of(node.args[0]), node.args[1], trace.shape(node)
    assert isinstance(times, list | tuple)
    stretched = spelled(trace, node, 1, tuple(times), shape)
    dims = (*trace.fixed(node, "repeat adds it", (1,) * (len(shape) - len(dims))), *dims)
    times = [*[1] * (len(shape) - len(times)), *times]
    result: list[Expression] = []
    for position, (dim, count) in enumerate(zip(dims, times, strict=True)):
        if size(dim) == shape[position]:
            result.append(dim)
        elif size(dim) == 1:
            result.append(stretched[position])
        elif isinstance(count, int):
            copies = trace.fixed(node, "it counts the copies of a repeat", (count,))
            result.append(Product((*copies, dim)))
        else:
            why = "it is repeated a number of times that depends on the batch"
            trace.pin(node, (dim,), why)
            result += trace.fixed(node, why, (shape[position],))
    return tuple(result)


def repeat_interleave(trace: Trace, node: fx.Node) -> Dims:
    """Each index several times in a row: a dimension becomes (dimension x copies)."""
    dims = list(trace.of(node.args[0]))
    count = node.args[1]
    axis = argument(node, "dim")
    if not isinstance(count, int) or not isinstance(axis, int):
        why = "it is flattened and repeated"
        trace.pin(node, tuple(dims), why)
        return trace.fixed(node, why)
    copies = trace.fixed(node, "it counts the copies of a repeat", (count,))
    dims[axis] = Product((dims[axis], *copies))
    return tuple(dims)


def stack(trace: Trace, node: fx.Node) -> Dims:
    """Side by side along a new dimension; the other dimensions are the same in all inputs."""
    inputs = [trace.of(part) for part in node.args[0]]  # type: ignore[union-attr]
    axis = _axis(node, len(inputs[0]) + 1)
    for dims in inputs[1:]:
        for dim, other in zip(inputs[0], dims, strict=True):
            trace.join(node, dim, other)
    new = trace.fixed(node, "it counts the tensors of a stack", (len(inputs),))
    return (*inputs[0][:axis], *new, *inputs[0][axis:])


def halves(trace: Trace, node: fx.Node) -> Dims:
    """GLU: the dimension has two halves, and one gates the other."""
    dims = list(trace.of(node.args[0]))
    axis = argument(node, "dim")
    assert isinstance(axis, int)
    half = Axis(size(dims[axis]) // 2)
    two = trace.fixed(node, "it counts the two halves of a gate", (2,))
    trace.join(node, dims[axis], Product((*two, half)))
    dims[axis] = half
    return tuple(dims)


def shuffle_pixels(trace: Trace, node: fx.Node) -> Dims:
    """x_N(Crr)hw -> y_NC(hr)(wr)."""
    dims, factor, shape = trace.of(node.args[0]), node.args[1], trace.shape(node)
    channels = Axis(shape[-3])
    square = trace.fixed(node, PIXELS, (int(factor) ** 2,))  # type: ignore[arg-type]
    trace.join(node, dims[-3], Product((channels, *square)))
    return (*dims[:-3], channels, *trace.fixed(node, SPATIAL, shape[-2:]))


def unshuffle_pixels(trace: Trace, node: fx.Node) -> Dims:
    """x_NC(hr)(wr) -> y_N(Crr)hw."""
    dims, factor, shape = trace.of(node.args[0]), node.args[1], trace.shape(node)
    square = trace.fixed(node, PIXELS, (int(factor) ** 2,))  # type: ignore[arg-type]
    flat = Product((dims[-3], *square))
    return (*dims[:-3], flat, *trace.fixed(node, SPATIAL, shape[-2:]))


def shuffle_channels(trace: Trace, node: fx.Node) -> Dims:
    """x_N(gc).. -> y_N(cg)..: the groups and the channels within them change places."""
    dims, groups = trace.of(node.args[0]), node.args[1]
    assert isinstance(groups, int)
    group, width = Axis(groups), Axis(size(dims[1]) // groups)
    trace.join(node, dims[1], Product((group, width)))
    trace.spell(node, (1,), group)
    return (dims[0], Product((width, group)), *dims[2:])


def move(trace: Trace, node: fx.Node) -> Dims:
    """Some dimensions move to other places; the rest keep their order."""
    dims = trace.of(node.args[0])
    source, target = (
        [axes] if isinstance(axes, int) else list(axes)  # type: ignore[arg-type]
        for axes in node.args[1:3]
    )
    order = [axis for axis in range(len(dims)) if axis not in {int(s) % len(dims) for s in source}]
    for place, axis in sorted(
        zip([int(t) % len(dims) for t in target], source, strict=True), key=lambda pair: pair[0]
    ):
        order.insert(place, int(axis) % len(dims))
    return tuple(dims[axis] for axis in order)


def reverse(trace: Trace, node: fx.Node) -> Dims:
    """All dimensions in the opposite order."""
    return tuple(reversed(trace.of(node.args[0])))


def cat(trace: Trace, node: fx.Node) -> Dims:
    """Side by side along one dimension; the other dimensions are the same in all inputs."""
    inputs = [trace.of(part) for part in node.args[0]]  # type: ignore[union-attr]
    inputs = [dims for dims in inputs if dims]
    axis = _axis(node, len(inputs[0]))
    for dims in inputs[1:]:
        for position, (dim, other) in enumerate(zip(inputs[0], dims, strict=True)):
            if position != axis:
                trace.join(node, dim, other)
    result = list(inputs[0])
    result[axis] = Concat(tuple(dims[axis] for dims in inputs))
    return tuple(result)


def split_apart(trace: Trace, node: fx.Node) -> tuple[Dims, ...]:
    """A concatenation, split again; the arguments hold the sizes of the pieces."""
    dims = trace.of(node.args[0])
    axis = _axis(node, len(dims))
    pieces = [Axis(shape[axis]) for shape in trace.shapes[node]]
    trace.join(node, dims[axis], Concat(tuple(pieces)))
    for position, piece in enumerate(pieces):
        trace.spell(node, (1, position), piece)
    return tuple((*dims[:axis], piece, *dims[axis + 1 :]) for piece in pieces)


def unbind(trace: Trace, node: fx.Node) -> tuple[Dims, ...]:
    """A dimension that is split into single indices keeps its size and disappears."""
    dims = trace.of(node.args[0])
    axis = _axis(node, len(dims))
    trace.pin(node, (dims[axis],), UNBOUND)
    left = (*dims[:axis], *dims[axis + 1 :])
    return tuple(left for _ in trace.shapes[node])


def select(trace: Trace, node: fx.Node) -> Dims:
    """One index of a dimension, which keeps its size and disappears."""
    dims = trace.of(node.args[0])
    axis = _axis(node, len(dims))
    trace.pin(node, (dims[axis],), "a single index is selected from it")
    return (*dims[:axis], *dims[axis + 1 :])


def narrow(trace: Trace, node: fx.Node) -> Dims:
    """A slice: the dimension consists of the part before it, the slice, and the part behind it."""
    dims = list(trace.of(node.args[0]))
    arguments: list[Any] = [*node.args, None, None, None, None][:5]
    axis = int(arguments[1] or 0) % len(dims)
    total, length = size(dims[axis]), trace.shape(node)[axis]
    if length == total:
        return tuple(dims)
    start, step = arguments[2] or 0, arguments[4] or 1
    if isinstance(step, int) and step > 1 and length * step == total and isinstance(start, int):
        run = Axis(length)
        steps = trace.fixed(node, STEPS, (step,))
        trace.join(node, dims[axis], Product((run, *steps)))
        dims[axis] = run
        return tuple(dims)
    if step != 1 or not isinstance(start, int):
        trace.pin(node, (dims[axis],), STEPS)
        dims[axis] = trace.fixed(node, STEPS, (length,))[0]
        return tuple(dims)
    start = start + total if start < 0 else start
    before, run, behind = Axis(start), Axis(length), Axis(total - start - length)
    parts = tuple(part for part in (before, run, behind) if part.size)
    trace.join(node, dims[axis], Concat(parts))
    if start and isinstance(arguments[2], int) and arguments[2] < 0:
        trace.pin(node, parts, "a slice counts from its end")
    elif start:
        trace.spell(node, (2,), before)
    if isinstance(arguments[3], int) and arguments[3] < 0 and behind.size:
        trace.pin(node, (behind,), "a slice counts from its end")
    elif isinstance(arguments[3], int) and arguments[3] <= total:
        trace.spell(node, (3,), *((before, run) if start else (run,)))
    dims[axis] = run
    return tuple(dims)


def pad(trace: Trace, node: fx.Node) -> Dims:
    """New indices on both sides of a dimension. They are axes of their own, which can shrink."""
    dims, amounts = list(trace.of(node.args[0])), node.args[1]
    assert isinstance(amounts, list | tuple)
    mode = argument(node, "mode", "constant")
    constant = node.target is torch.ops.aten.constant_pad_nd.default or mode == "constant"
    for pair in range(len(amounts) // 2):
        axis = len(dims) - 1 - pair
        left, right = amounts[2 * pair], amounts[2 * pair + 1]
        if left == 0 and right == 0:
            continue
        if (
            not constant
            or not isinstance(left, int)
            or not isinstance(right, int)
            or min(left, right) < 0
        ):
            why = "its padding isn't a constant"
            trace.pin(node, (dims[axis],), why)
            dims[axis] = trace.fixed(node, why, (trace.shape(node)[axis],))[0]
            continue
        sides = Axis(left), Axis(right)
        for offset, side in enumerate(sides):
            if side.size:
                trace.spell(node, (1, 2 * pair + offset), side)
        dims[axis] = Concat(tuple(p for p in (sides[0], dims[axis], sides[1]) if size(p)))
    return tuple(dims)


def getitem(trace: Trace, node: fx.Node) -> Dims:
    """One of several results."""
    source, index = node.args
    assert isinstance(source, fx.Node)
    assert isinstance(index, int)
    dims: Dims = trace.dims[source][index]
    return dims


def _axis(node: fx.Node, rank: int) -> int:
    given = argument(node, "dim")
    assert isinstance(given, int)
    return given % rank
