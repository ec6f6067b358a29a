"""Window: operators with windows that slide over space, such as pooling, and resizing."""

from __future__ import annotations

import re

from torch import fx

from penjing.network.axes.algebra import Axis, Concat, Expression, Product, resolve, size
from penjing.network.axes.trace import Dims, Trace, operator_name

SPATIAL = "it is a spatial extent"
CUT = "it is cut into windows"
WINDOWS = "it counts the windows"
KERNEL = "it is the extent of a kernel"


def slide(trace: Trace, node: fx.Node, dims: Dims, shape: tuple[int, ...]) -> Dims:
    """The dimensions after a window has moved over `dims`.

    An extent of unchanged size is the same axis, with neighbouring indices mixed. Any other extent
    is new and fixed.
    """
    extents: list[Expression] = []
    for dim, length in zip(dims, shape, strict=True):
        dim = resolve(dim)
        if isinstance(dim, Concat) and len(dim.parts) == 3 and size(dim.parts[1]) == length:
            trace.pin(node, (dim.parts[0], dim.parts[2]), "it is the padding of a window")
            dim = dim.parts[1]
        if size(dim) == length:
            trace.mix(node, (dim,), "a window slides over it")
            extents.append(dim)
        else:
            trace.pin(node, (dim,), "a window slides over it and changes its size")
            extents += trace.fixed(node, SPATIAL, (length,))
    return tuple(extents)


def pool(trace: Trace, node: fx.Node) -> Dims:
    """x_NCs.. -> y_NCt..: each channel by itself."""
    dims, spatial = trace.of(node.args[0]), _spatial(node)
    if "adaptive" in str(node.target):
        for offset in range(spatial):
            if size(dims[offset - spatial]) == trace.shape(node)[offset - spatial]:
                trace.spell(node, (1, offset), dims[offset - spatial])
    return (*dims[:-spatial], *slide(trace, node, dims[-spatial:], trace.shape(node)[-spatial:]))


def pool_with_indices(trace: Trace, node: fx.Node) -> tuple[Dims, Dims]:
    """As `pool`, once for the values and once for their positions."""
    dims, spatial = trace.of(node.args[0]), _spatial(node)
    shape = trace.shapes[node][0]
    trace.pin(node, dims[-spatial:], f"{operator_name(node)} returns positions in it")
    new = (*dims[:-spatial], *trace.fixed(node, SPATIAL, shape[-spatial:]))
    return new, new


def resize(trace: Trace, node: fx.Node) -> Dims:
    """x_NCs.. -> y_NCt..: up- or downsampled in space."""
    dims = trace.of(node.args[0])
    trace.pin(node, dims[2:], "it is a spatial extent that is resized")
    return (*dims[:2], *trace.fixed(node, SPATIAL, trace.shape(node)[2:]))


def sample(trace: Trace, node: fx.Node) -> Dims:
    """x_NCs.., positions_Nt..d -> y_NCt..: the image is read at given positions."""
    dims = trace.of(node.args[0])
    trace.pin(node, (*dims[2:], *trace.of(node.args[1])), "an image is sampled along it")
    return (*dims[:2], *trace.fixed(node, SPATIAL, trace.shape(node)[2:]))


def unfold(trace: Trace, node: fx.Node) -> Dims:
    """x_..s.. -> y_..t..w: windows along one dimension, with their extent as the last one."""
    dims, axis, shape = list(trace.of(node.args[0])), node.args[1], trace.shape(node)
    assert isinstance(axis, int)
    trace.pin(node, (dims[axis],), CUT)
    dims[axis] = trace.fixed(node, WINDOWS, (shape[axis % len(dims)],))[0]
    return (*dims, *trace.fixed(node, "it is the extent of a window", shape[-1:]))


def columns(trace: Trace, node: fx.Node) -> Dims:
    """x_NChw -> y_N(Ckk)L: the windows of an image as columns."""
    dims, shape = trace.of(node.args[0]), trace.shape(node)
    trace.pin(node, dims[-2:], CUT)
    (kernel,) = trace.fixed(node, KERNEL, (shape[-2] // size(dims[-3]),))
    flat = Product((dims[-3], kernel))
    return (*dims[:-3], flat, *trace.fixed(node, WINDOWS, shape[-1:]))


def image_of_columns(trace: Trace, node: fx.Node) -> Dims:
    """x_N(Ckk)L -> y_NChw: columns, summed up to an image."""
    dims, shape = trace.of(node.args[0]), trace.shape(node)
    channels = Axis(shape[-3])
    (kernel,) = trace.fixed(node, KERNEL, (size(dims[-2]) // shape[-3],))
    trace.join(node, dims[-2], Product((channels, kernel)))
    trace.pin(node, dims[-1:], WINDOWS)
    return (*dims[:-2], channels, *trace.fixed(node, SPATIAL, shape[-2:]))


def _spatial(node: fx.Node) -> int:
    """The number of dimensions of the window."""
    match = re.search(r"pool(\d)d", str(node.target))
    assert match
    return int(match[1])
