"""Fuse: write consecutive linear layers as one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import fx

from penjing.contract import LeftAlone, Plan
from penjing.errors import InputError
from penjing.measure.costs import mac_terms
from penjing.measure.latency import INDIFFERENCE
from penjing.measure.latency_table import FUSED, LatencyTable
from penjing.network import Network
from penjing.network.analysis.affine import SUMS, Region, Regions, is_one_layer, macs_of
from penjing.network.graph.shapes import shapes
from penjing.passes.conditions import Condition
from penjing.passes.contract import Pass, Progress
from penjing.passes.counted import counted
from penjing.passes.names import is_in
from penjing.tasks.task import Task


@dataclass(frozen=True)
class Fuse(Pass):
    """Write layers that follow each other without an activation in between as one layer.

    Two kernels w1 and w2, one after the other, are one kernel of size k1 + k2 - 1; parallel
    branches of a sum are one kernel that covers all of them; a shortcut is a kernel with a one in
    the middle. Batch norms on the way are folded in. The fused network computes the same function,
    borders included: a layer that pads is fused only with a layer in front of it that gives zeros
    there.

    Fusing pays for networks with several branches in training, such as RepVGG, for factors that are
    no longer needed, and behind `Drop`. Whether the larger kernel is faster depends on the runtime:
    with a table of measured times (`penjing.tools.alternatives.alternatives_table`), the pass takes
    the parts that are faster as one layer. Without one, it takes the parts whose MACs don't grow.

    Attributes:
        names: fuse only these: the last layers of the parts, or modules that hold them.
        most: the largest ratio of MACs, fused to unfused, above 0. A table decides instead of it.
        front: also fuse layers that pad, by moving the zeros around inner values to the front.
            That changes values near the border, by as much as the inner layers' biases matter.
        skip: parts to leave alone, named like `names`.
        table: measured times of the parts, as they are and as one layer each. A part is fused if
            that is more than 1 % faster.

    Raises:
        InputError: `most` isn't positive, `names` or `skip` names something unknown, `table` comes
            with `names` or `front`, or the table is for another network.

    Source: X. Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", 2021; J. Kim et al.,
    "LayerMerge: Neural Network Depth Compression through Layer Pruning and Merging", 2024 (padding
    at the front).

    >>> import penjing, torch
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 4, 1))
    >>> data = penjing.Arrays(torch.randn(8, 3, 9, 9), torch.arange(8) % 4)
    >>> task = penjing.Task(model, data.x[:2], train=data, test=data)
    >>> network = penjing.capture(model, task.example)
    >>> fuse = penjing.passes.Fuse()
    >>> print(fuse.plan(network, task).summary)
    fuses 2 layers into 1
    >>> fused = fuse(network, task)
    >>> (fused(data.x) - network(data.x)).abs().max().item() < 1e-5
    True
    """

    names: tuple[str, ...] = ()
    most: float = 1.0
    front: bool = False
    skip: tuple[str, ...] = ()
    table: LatencyTable | None = None

    requires: ClassVar[frozenset[Condition]] = frozenset({Condition.FLOAT})
    provides: ClassVar[frozenset[Condition]] = frozenset({Condition.REDUCED})

    def __post_init__(self) -> None:
        if not self.most > 0:
            raise InputError(f"most must be positive, as a ratio of MACs; found {self.most}")
        for name in ("names", "skip"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "table", LatencyTable.read(self.table))
        if self.table is not None and self.names:
            raise InputError("names and table both say what to fuse; give only one of them")
        if self.table is not None and self.front:
            raise InputError(
                "a latency table has no times of parts whose zeros move to the front; give front "
                "or table"
            )

    def decide(self, network: Network, task: Task, progress: Progress) -> Plan:
        """Find the parts that are linear, and take those that cost less as one layer."""
        if self.table is not None:
            self.table.require_for(network)
        known = shapes(network)
        parts = linear_parts(network, known, self.front)
        called = {end: str(region.layers[-1].meta["layer"]) for end, region in parts.items()}
        for name in (*self.names, *self.skip):
            if not any(is_in(layer, name) for layer in called.values()):
                what = "skip" if name in self.skip else "names"
                raise InputError(
                    f"{what} has {name!r}, but no part ends there; parts end in "
                    f"{', '.join(called.values()) or 'nothing'}"
                )
        taken, left = {}, []
        for end, region in parts.items():
            layer = called[end]
            if any(is_in(layer, name) for name in self.skip):
                left.append(LeftAlone(layer, "it is listed in skip"))
            elif self.names and not any(is_in(layer, name) for name in self.names):
                left.append(LeftAlone(layer, "it isn't listed in names"))
            elif not self.names and (why := self._why_not(region, end, known)):
                left.append(LeftAlone(layer, why))
            else:
                taken[end] = region
        if not taken:
            none = LeftAlone("the network", "no two layers follow each other without an activation")
            return self._plan(left_alone=left or [none])
        layers = {end.name: region.source.name for end, region in taken.items()}
        before = sum(len(region.layers) for region in taken.values())
        return self._plan(
            [{"edit": "fuse", "layers": layers, "front": self.front}],
            f"fuses {counted(before, 'layer')} into {len(taken)}",
            left,
        )

    def _why_not(self, region: Region, end: fx.Node, known: Mapping[fx.Node, Any]) -> str:
        """Why one layer would cost more; empty if it wouldn't."""
        if self.table is not None:
            layer, count = str(region.layers[-1].meta["layer"]), len(region.layers)
            after = self.table.in_place_of(layer, FUSED, [count])
            if after is None:
                return "the latency table has no time of it as one layer"
            whole = self.table.whole()
            parts = {str(node.meta.get("layer")) for node in region.nodes}
            before = sum(ms for layer, ms in whole.items() if layer in parts)
            faster = after < (1 - INDIFFERENCE) * before
            return "" if faster else f"fused, it would take {after:.4g} of {before:.4g} ms"
        ratio = macs_of(region.function, known[end]) / _macs(region, known)
        if ratio > self.most:
            return f"fused, it would have {ratio:.2f} times the MACs (at most {self.most:g})"
        return ""


def linear_parts(
    network: Network, known: Mapping[fx.Node, Any], front: bool
) -> dict[fx.Node, Region]:
    """By last node, the parts that one layer can replace; no two have a node in common.

    Of the parts that end at one node, it is the one with the fewest MACs once fused, relative to
    its own.
    """
    regions = Regions(network, known, front)
    taken: set[fx.Node] = set()
    parts: dict[fx.Node, Region] = {}
    for end in reversed(list(network.calls())):
        options = [
            region
            for region in regions.ending_at(end)
            if not region.nodes & taken
            and (len(region.layers) > 1 or _has_sum(region))
            and is_one_layer(region, end, known)
        ]
        if options:
            best = max(options, key=lambda region: _saved(region, end, known))
            parts[end] = best
            taken |= best.nodes
    return dict(reversed(parts.items()))


def _saved(region: Region, end: fx.Node, known: Mapping[fx.Node, Any]) -> tuple[int, int]:
    return _macs(region, known) - macs_of(region.function, known[end]), len(region.nodes)


def _macs(region: Region, known: Mapping[fx.Node, Any]) -> int:
    return sum(
        math.prod(factors)
        for node in region.nodes
        for factors in mac_terms(node, known.__getitem__)
    )


def _has_sum(region: Region) -> bool:
    return any(node.target in SUMS for node in region.nodes)
