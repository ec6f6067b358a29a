"""Elementwise: operators that keep the dimensions of their inputs."""

from __future__ import annotations

from typing import Any

from torch import fx

from penjing.network.axes.algebra import Expression, size
from penjing.network.axes.trace import Dims, Trace, operator_name
from penjing.network.graph.arguments import argument

FOURIER = "a Fourier transform is computed along it"
PARTS = "it holds the real and the imaginary part"


def same(trace: Trace, node: fx.Node) -> Dims:
    """The first argument's dimensions."""
    return trace.of(node.args[0])


def pointwise(trace: Trace, node: fx.Node) -> Dims:
    """Broadcasting, aligned from the right: equal sizes are the same axis, size 1 stretches."""
    inputs = [trace.of(source) for source in node.all_input_nodes]
    result: list[Expression] = []
    for position in range(1, len(trace.shape(node)) + 1):
        wide = [dims[-position] for dims in inputs if len(dims) >= position]
        wide = [dim for dim in wide if size(dim) == trace.shape(node)[-position]]
        for other in wide[1:]:
            trace.join(node, wide[0], other)
        result.append(wide[0])
    return tuple(reversed(result))


def like_the_second(trace: Trace, node: fx.Node) -> Dims:
    """x, stretched to the shape of the second argument."""
    dims, model = trace.of(node.args[0]), trace.of(node.args[1])
    for position in range(1, len(dims) + 1):
        if size(dims[-position]) == size(model[-position]):
            trace.join(node, dims[-position], model[-position])
    return model


def displaced(trace: Trace, node: fx.Node) -> Dims:
    """The input's dimensions; those that are rolled or flipped keep their sizes."""
    dims = trace.of(node.args[0])
    given = argument(node, "dims", ())
    axes: Any = given if isinstance(given, list | tuple) and given else range(len(dims))
    for axis in axes:
        trace.pin(node, (dims[int(axis)],), f"{operator_name(node)} moves its indices")
    return dims


def ranked(trace: Trace, node: fx.Node) -> Dims | tuple[Dims, ...]:
    """Sorting and ranking: all indices along the dimension count, so it keeps its size."""
    dims = list(trace.of(node.args[0]))
    chosen = argument(node, "dim", -1)
    assert isinstance(chosen, int)
    why = f"{operator_name(node)} ranks the values along it"
    trace.pin(node, (dims[chosen],), why)
    shapes = trace.shapes[node]
    several = bool(shapes) and isinstance(shapes[0], tuple)
    (dims[chosen],) = trace.fixed(node, why, ((shapes[0] if several else shapes)[chosen],))
    return (tuple(dims),) * len(shapes) if several else tuple(dims)


def spectrum(trace: Trace, node: fx.Node) -> Dims:
    """A Fourier transform over some dimensions, which keep their sizes."""
    dims, shape = list(trace.of(node.args[0])), trace.shape(node)
    name = str(node.target).split(".")[1]
    usual = [-2, -1] if "2" in name else list(range(len(dims))) if name.endswith("n") else -1
    given: Any = argument(node, "dim", usual)
    chosen: Any = usual if given is None else given
    for axis in [chosen] if isinstance(chosen, int) else chosen:
        trace.pin(node, (dims[axis],), FOURIER)
        dims[axis] = trace.fixed(node, FOURIER, (shape[axis],))[0]
    return tuple(dims)


def as_complex(trace: Trace, node: fx.Node) -> Dims:
    """x_..2 -> complex x_.. ."""
    dims = trace.of(node.args[0])
    trace.pin(node, dims[-1:], PARTS)
    return dims[:-1]


def as_real(trace: Trace, node: fx.Node) -> Dims:
    """Complex x_.. -> x_..2."""
    return (*trace.of(node.args[0]), *trace.fixed(node, PARTS, (2,)))


def positioned(trace: Trace, node: fx.Node) -> Dims:
    """The input's dimensions; entries are kept or dropped by their position in the last two."""
    dims = trace.of(node.args[0])
    trace.pin(node, dims[-2:], f"{operator_name(node)} selects by position in it")
    return dims
