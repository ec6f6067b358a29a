"""Parts: what can be taken from a network, blocks, indices of axes and ranks of layers, and which
of it excludes which."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from penjing.network import Axes, Network, find_axes
from penjing.network.analysis.blocks import Block, find_blocks
from penjing.network.axes.algebra import leaves, resolve
from penjing.network.graph.layers import layers_of
from penjing.passes.structure.channels.importance import importances
from penjing.passes.structure.channels.widths import Widths
from penjing.passes.structure.cut_losses import Cut, Factoring, Narrowing
from penjing.search.predict.low_rank import factorable
from penjing.search.predict.shape import IMPORTANCE, Shape, rank_axis

Cuts = Literal["widths", "blocks", "ranks"]
"""A kind of parts. In this order the cuts of a step are made, while the axes exist."""
EVERY: tuple[Cuts, ...] = get_args(Cuts)
LEVELS = (0.75, 0.5, 0.25)
"""The shares of an axis that may be left."""
WIDE = 0.25
"""An axis that touches a larger share of the layers isn't cut: all of them would change. With all
axes allowed, ResNet-20's networks down to a quarter of its MACs are the same."""
FEW = 4
"""Unless it touches no more layers than this."""


@dataclass(frozen=True)
class Change:
    """A block that goes (0 are left), an axis of which so many indices are left, or a layer that
    becomes two factors of such a rank."""

    kind: Cuts
    name: str
    left: int = 0

    @property
    def turn(self) -> int:
        """When it is made, among the changes of one step."""
        return EVERY.index(self.kind)


class Parts:
    """The parts of a network that can go: whole blocks, indices of axes, and ranks of layers.

    Args:
        network: the uncut network.
        multiple: of which widths are multiples where they can be.
        cuts: which kinds of parts may go.

    Attributes:
        blocks: by name; whatever reads a block's end can read its start instead.
        layers: by axis, the names of the layers that read or write it.
        tied: by block, the axes that only one of its two ends has. Such a block can go only while
            these axes are whole, because then its ends are equally wide.
        sizes: by axis that may become narrower, how wide it is.
        keep: likewise, and by number of indices left, which ones stay.
        factorable: by path, the layers that may become factors. Either that or their axes change.
    """

    def __init__(self, network: Network, multiple: int, cuts: Sequence[Cuts] = EVERY) -> None:
        blocks = find_blocks(network) if "blocks" in cuts else []
        every = [block for block in blocks if block.alike]
        names = [block.name for block in every]
        self.blocks = {block.name: block for block in every if names.count(block.name) == 1}
        axes = find_axes(network)
        self.layers = layers_by_axis(network, axes)
        self.tied = {name: _tied(axes, block) for name, block in self.blocks.items()}
        most = max(FEW, WIDE * len(layers_of(network)))
        free = axes.free if "widths" in cuts else {}
        able = {
            name: group
            for name, group in free.items()
            if 0 < len(self.layers[name]) <= most and not group.mixed
        }
        self.sizes = {name: group.size for name, group in able.items()}
        self.keep: dict[str, dict[int, list[int]]] = {}
        for name, scores in importances(network, able, IMPORTANCE, None).items():
            best = scores.argsort(descending=True, stable=True).tolist()
            counts = counts_of(len(best), multiple)
            self.keep[name] = {count: sorted(best[:count]) for count in counts}
        self.factorable = factorable(network, multiple) if "ranks" in cuts else {}

    def levels(self, change: Change) -> int:
        """How many widths an axis may have, or ranks a layer."""
        if change.kind == "ranks":
            return len(self.factorable[change.name].ranks)
        return len(self.keep[change.name])

    def changes(self, shape: Shape) -> list[Change]:
        """What can still be changed in a network of that shape."""
        gone = self._gone(shape)
        ends = {self.blocks[name].end for name in shape.gone}
        merged = {axis for name in shape.gone for axis in self.tied[name]}
        factors = {self.factorable[name].node for name in shape.ranks}
        narrowed = {layer for name in shape.widths for layer in self.layers[name]}
        blocks = [
            Change("blocks", name)
            for name, block in self.blocks.items()
            if name not in shape.gone
            and block.end not in ends
            and not gone & set(block.layers)
            and not self.tied[name] & shape.widths.keys()
        ]
        axes = [
            Change("widths", name, count)
            for name, levels in self.keep.items()
            for count in levels
            if count < shape.widths.get(name, math.inf)
            and not self.layers[name] <= gone
            and not self.layers[name] & factors
            and name not in merged
        ]
        ranks = [
            Change("ranks", name, rank)
            for name, layer in self.factorable.items()
            for rank in layer.ranks
            if rank < shape.ranks.get(name, math.inf) and layer.node not in gone | narrowed
        ]
        return [*(blocks if len(blocks) > 1 else []), *axes, *ranks]

    def cut(self, change: Change, shape: Shape) -> Cut:
        """The cut that makes a change in a network of that shape."""
        if change.kind == "blocks":
            return self.blocks[change.name]
        if change.kind == "ranks":
            layer, rank = self.factorable[change.name], shape.ranks.get(change.name)
            if rank is None:
                return Factoring(layer.node, layer.scheme, change.left)
            return Narrowing(rank_axis(change.name), tuple(range(change.left)), rank)
        wanted = self.keep[change.name][change.left]
        before = shape.widths.get(change.name)
        if before is None:
            return Narrowing(change.name, tuple(wanted), self.sizes[change.name])
        places = {index: place for place, index in enumerate(self.keep[change.name][before])}
        return Narrowing(change.name, tuple(places[index] for index in wanted), before)

    def apart(self, changes: list[Change]) -> Iterator[tuple[int, ...]]:
        """Sets of changes of which only one can be made."""
        levels: dict[tuple[Cuts, str], list[int]] = {}
        for place, change in enumerate(changes):
            levels.setdefault((change.kind, change.name), []).append(place)
        yield from (tuple(places) for places in levels.values() if len(places) > 1)
        for (part, mine), (other, theirs) in itertools.combinations(levels.items(), 2):
            if self._exclude(*part, *other) or self._exclude(*other, *part):
                yield *mine, *theirs

    def _exclude(self, kind: Cuts, name: str, other: Cuts, its_name: str) -> bool:
        """Whether a part that is changed and another one can't both be."""
        if kind == "ranks":
            node = self.factorable[name].node
            return other == "widths" and node in self.layers[its_name]
        if kind != "blocks":
            return False
        block = self.blocks[name]
        if other == "widths":
            return self.layers[its_name] <= set(block.layers) or its_name in self.tied[name]
        if other == "ranks":
            return self.factorable[its_name].node in block.layers
        rival = self.blocks[its_name]
        return bool(set(block.layers) & set(rival.layers)) or block.end == rival.end

    def after(self, shape: Shape, change: Change) -> Shape:
        """The shape after a change, without widths of axes and ranks of layers that are gone."""
        if change.kind == "widths":
            return replace(shape, widths={**shape.widths, change.name: change.left})
        if change.kind == "ranks":
            return replace(shape, ranks={**shape.ranks, change.name: change.left})
        shape = replace(shape, gone=tuple(sorted((*shape.gone, change.name))))
        gone = self._gone(shape)
        widths = {
            name: count for name, count in shape.widths.items() if not self.layers[name] <= gone
        }
        ranks = {
            name: rank
            for name, rank in shape.ranks.items()
            if self.factorable[name].node not in gone
        }
        return replace(shape, widths=widths, ranks=ranks)

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
