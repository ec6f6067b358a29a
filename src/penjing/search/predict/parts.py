"""Parts: what can be taken from a network, blocks and indices of axes, and which of it excludes
which."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from penjing.network import Axes, Network, find_axes
from penjing.network.analysis.blocks import Block, find_blocks
from penjing.network.axes.algebra import leaves, resolve
from penjing.network.graph.layers import layers_of
from penjing.passes.structure.channels.importance import importances
from penjing.passes.structure.channels.widths import Widths
from penjing.passes.structure.cut_losses import Cut, Narrowing
from penjing.search.predict.shape import IMPORTANCE, Shape

LEVELS = (0.75, 0.5, 0.25)
"""The shares of an axis that may be left."""
WIDE = 0.25
"""An axis that touches a larger share of the layers isn't cut: all of them would change."""
FEW = 4
"""Unless it touches no more layers than this."""


@dataclass(frozen=True)
class Change:
    """A block that goes (0 are left), or an axis of which so many indices are left."""

    name: str
    left: int = 0


class Parts:
    """The parts of a network that can go: whole blocks, and indices of axes.

    Attributes:
        blocks: by name; whatever reads a block's end can read its start instead.
        layers: by axis, the names of the layers that read or write it.
        tied: by block, the axes that only one of its two ends has. Such a block can go only while
            these axes are whole, because then its ends are equally wide.
        sizes: by axis that may become narrower, how wide it is.
        keep: likewise, and by number of indices left, which ones stay.
    """

    def __init__(self, network: Network, multiple: int) -> None:
        every = [block for block in find_blocks(network) if block.alike]
        names = [block.name for block in every]
        self.blocks = {block.name: block for block in every if names.count(block.name) == 1}
        axes = find_axes(network)
        self.layers = layers_by_axis(network, axes)
        self.tied = {name: _tied(axes, block) for name, block in self.blocks.items()}
        most = max(FEW, WIDE * len(layers_of(network)))
        able = {
            name: group
            for name, group in axes.free.items()
            if 0 < len(self.layers[name]) <= most and not group.mixed
        }
        self.sizes = {name: group.size for name, group in able.items()}
        self.keep: dict[str, dict[int, list[int]]] = {}
        for name, scores in importances(network, able, IMPORTANCE, None).items():
            best = scores.argsort(descending=True, stable=True).tolist()
            counts = counts_of(len(best), multiple)
            self.keep[name] = {count: sorted(best[:count]) for count in counts}

    def changes(self, shape: Shape) -> list[Change]:
        """What can still be changed in a network of that shape."""
        gone = self._gone(shape)
        ends = {self.blocks[name].end for name in shape.gone}
        merged = {axis for name in shape.gone for axis in self.tied[name]}
        blocks = [
            Change(name)
            for name, block in self.blocks.items()
            if name not in shape.gone
            and block.end not in ends
            and not gone & set(block.layers)
            and not self.tied[name] & shape.widths.keys()
        ]
        axes = [
            Change(name, count)
            for name, levels in self.keep.items()
            for count in levels
            if count < shape.widths.get(name, math.inf)
            and not self.layers[name] <= gone
            and name not in merged
        ]
        return [*(blocks if len(blocks) > 1 else []), *axes]

    def cut(self, change: Change, shape: Shape) -> Cut:
        """The cut that makes a change in a network of that shape."""
        if not change.left:
            return self.blocks[change.name]
        wanted = self.keep[change.name][change.left]
        before = shape.widths.get(change.name)
        if before is None:
            return Narrowing(change.name, tuple(wanted), self.sizes[change.name])
        places = {index: place for place, index in enumerate(self.keep[change.name][before])}
        return Narrowing(change.name, tuple(places[index] for index in wanted), before)

    def apart(self, changes: list[Change]) -> Iterator[tuple[int, ...]]:
        """Sets of changes of which only one can be made."""
        by_axis: dict[str, list[int]] = {}
        for place, change in enumerate(changes):
            if change.left:
                by_axis.setdefault(change.name, []).append(place)
        yield from (tuple(places) for places in by_axis.values() if len(places) > 1)
        blocks = [(place, self.blocks[c.name]) for place, c in enumerate(changes) if not c.left]
        for (place, block), (other, rival) in itertools.combinations(blocks, 2):
            if set(block.layers) & set(rival.layers) or block.end == rival.end:
                yield place, other
        for place, block in blocks:
            for name, places in by_axis.items():
                if self.layers[name] <= set(block.layers) or name in self.tied[block.name]:
                    yield place, *places

    def after(self, shape: Shape, change: Change) -> Shape:
        """The shape after a change, without widths of axes that are gone."""
        if change.left:
            return replace(shape, widths={**shape.widths, change.name: change.left})
        shape = replace(shape, gone=tuple(sorted((*shape.gone, change.name))))
        gone = self._gone(shape)
        left = {
            name: count for name, count in shape.widths.items() if not self.layers[name] <= gone
        }
        return replace(shape, widths=left)

    def _gone(self, shape: Shape) -> set[str]:
        """The layers of the blocks that are gone."""
        return {layer for name in shape.gone for layer in self.blocks[name].layers}


def _tied(axes: Axes, block: Block) -> set[str]:
    """The names of the axes that only one end of a block has."""
    dims = {node.name: dims for node, dims in axes.trace.dims.items()}
    start, end = (
        {leaf for dim in dims.get(name, ()) for leaf in leaves(resolve(dim))}
        for name in (block.start, block.end)
    )
    return {name for name, group in axes.items() if group.axis in start ^ end}


def layers_by_axis(network: Network, axes: Axes) -> dict[str, set[str]]:
    """By axis, the names of the layers that read or write it."""
    owners: dict[str, str] = {}
    for node in layers_of(network):
        for source in node.all_input_nodes:
            if source.op == "get_attr":
                owners[str(source.target)] = node.name
    return {
        name: {owners[site.tensor] for site in group.sites if site.tensor in owners}
        for name, group in axes.items()
    }


def counts_of(size: int, multiple: int) -> list[int]:
    """The numbers of indices that an axis may have instead of `size`, the largest first.

    >>> counts_of(64, 8), counts_of(16, 8), counts_of(5, 8)
    ([48, 32, 16], [8], [])
    """
    widths = Widths(0.0, multiple=multiple)
    counts = (widths.choices(size, math.ceil(level * size))[-1] for level in LEVELS)
    return sorted({count for count in counts if count < size}, reverse=True)
