"""Windows that slide over space: pooling."""

from __future__ import annotations

import re

from torch import fx

from penjing.network.trace import Dims, Trace


def pool(trace: Trace, node: fx.Node) -> Dims:
    """x_NCs.. -> y_NCt..: every channel on its own, the spatial extents are new."""
    found = re.search(r"pool(\d)d", str(node.target))
    assert found
    spatial = int(found[1])
    dims = trace.of(node.args[0])
    new = trace.fixed(node, "a spatial extent", trace.shape(node)[-spatial:])
    return (*dims[:-spatial], *new)


def pool_with_indices(trace: Trace, node: fx.Node) -> tuple[Dims, Dims]:
    """As `pool`, once for the values and once for their positions."""
    dims = trace.of(node.args[0])
    shape = trace.shapes[node][0]
    new = (*dims[:-2], *trace.fixed(node, "a spatial extent", shape[-2:]))
    return new, new
