"""Windows that slide over space: pooling, resizing, and windows laid side by side."""

from __future__ import annotations

import re

from torch import fx

from penjing.network.axes.algebra import Axis, Concat, Expression, Product, resolve, size
from penjing.network.axes.trace import Dims, Trace


def slide(trace: Trace, node: fx.Node, dims: Dims, shape: tuple[int, ...]) -> Dims:
    """Where a window has slid over `dims`: an extent that stayed as it was is the same axis, with
    its neighbours mixed; any other is new and fixed."""
    extents: list[Expression] = []
    for dim, length in zip(dims, shape, strict=True):
        dim = resolve(dim)
        if isinstance(dim, Concat) and len(dim.parts) == 3 and size(dim.parts[1]) == length:
            trace.pin(node, (dim.parts[0], dim.parts[2]), "a margin for a window")
            dim = dim.parts[1]
        if size(dim) == length:
            trace.mix(node, (dim,), "a window slides over it")
            extents.append(dim)
        else:
            trace.pin(node, (dim,), "a window slides over it in steps")
            extents += trace.fixed(node, "a spatial extent", (length,))
    return tuple(extents)


def pool(trace: Trace, node: fx.Node) -> Dims:
    """x_NCs.. -> y_NCt..: every channel on its own."""
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
    trace.pin(node, dims[-spatial:], f"{node.name} gives positions in it")
    new = (*dims[:-spatial], *trace.fixed(node, "a spatial extent", shape[-spatial:]))
    return new, new


def resize(trace: Trace, node: fx.Node) -> Dims:
    """x_NCs.. -> y_NCt..: up- or downsampled in space."""
    dims = trace.of(node.args[0])
    trace.pin(node, dims[2:], "a spatial extent that is resized")
    return (*dims[:2], *trace.fixed(node, "a spatial extent", trace.shape(node)[2:]))


def sample_grid(trace: Trace, node: fx.Node) -> Dims:
    """x_NCs.., grid_Nt..d -> y_NCt..: read at positions."""
    dims = trace.of(node.args[0])
    trace.pin(node, (*dims[2:], *trace.of(node.args[1])), "positions in space")
    return (*dims[:2], *trace.fixed(node, "a spatial extent", trace.shape(node)[2:]))


def unfold(trace: Trace, node: fx.Node) -> Dims:
    """x_..s.. -> y_..t..w: windows along one dimension, their extent at the end."""
    dims, axis, shape = list(trace.of(node.args[0])), node.args[1], trace.shape(node)
    assert isinstance(axis, int)
    trace.pin(node, (dims[axis],), "cut into windows")
    dims[axis] = trace.fixed(node, "windows", (shape[axis % len(dims)],))[0]
    return (*dims, *trace.fixed(node, "a window's extent", shape[-1:]))


def columns(trace: Trace, node: fx.Node) -> Dims:
    """x_NChw -> y_N(Ckk)L: the windows of an image as columns."""
    dims, shape = trace.of(node.args[0]), trace.shape(node)
    trace.pin(node, dims[-2:], "cut into windows")
    (kernel,) = trace.fixed(node, "a kernel's extent", (shape[-2] // size(dims[-3]),))
    flat = Product((dims[-3], kernel))
    return (*dims[:-3], flat, *trace.fixed(node, "windows", shape[-1:]))


def image_of_columns(trace: Trace, node: fx.Node) -> Dims:
    """x_N(Ckk)L -> y_NChw: columns summed up to an image."""
    dims, shape = trace.of(node.args[0]), trace.shape(node)
    channels = Axis(shape[-3])
    (kernel,) = trace.fixed(node, "a kernel's extent", (size(dims[-2]) // shape[-3],))
    trace.join(node, dims[-2], Product((channels, kernel)))
    trace.pin(node, dims[-1:], "windows")
    return (*dims[:-2], channels, *trace.fixed(node, "a spatial extent", shape[-2:]))


def _spatial(node: fx.Node) -> int:
    """How many dimensions the window has."""
    match = re.search(r"pool(\d)d", str(node.target))
    assert match
    return int(match[1])
