"""Shape: which blocks of a network are gone, how wide its axes are, and what is of low rank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from penjing.contract import Json
from penjing.passes import Drop, Factorize, Pass, PruneChannels
from penjing.passes.structure.channels.importance import Criterion

IMPORTANCE: Criterion = "l1+l2"
"""How the indices are ranked that stay."""


@dataclass(frozen=True)
class Shape:
    """What is left of a network.

    >>> [type(step).__name__ for step in Shape(("layer1.2",), {"layer1.0.conv1": 8}).passes]
    ['PruneChannels', 'Drop']

    Attributes:
        gone: the names of the blocks that are gone.
        widths: by name of each axis that is narrower, how many indices are left.
        ranks: by path of each layer that became two factors, their rank.
    """

    gone: tuple[str, ...] = ()
    widths: Mapping[str, int] = field(default_factory=dict)
    ranks: Mapping[str, int] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.gone, *sorted(self.widths.items()), *sorted(self.ranks.items())))

    @property
    def passes(self) -> tuple[Pass, ...]:
        """The passes that make it from the original network."""
        return self.passes_after(Shape())

    @property
    def passes_without_data(self) -> tuple[Pass, ...]:
        """The same, but for the values of factors; sooner, where only what a file takes counts."""
        return tuple(
            replace(step, basis="weights") if isinstance(step, Factorize) else step
            for step in self.passes
        )

    def passes_after(self, before: Shape) -> tuple[Pass, ...]:
        """The passes that make it from a network from which less is gone."""
        passes: list[Pass] = []
        widths = {
            name: count for name, count in self.widths.items() if before.widths.get(name) != count
        }
        gone = tuple(name for name in self.gone if name not in before.gone)
        ranks = {name: rank for name, rank in self.ranks.items() if name not in before.ranks}
        for name, rank in self.ranks.items():
            if rank < before.ranks.get(name, rank):
                widths[rank_axis(name)] = rank
        if widths:
            passes.append(PruneChannels(importance=IMPORTANCE, widths=widths))
        if gone:
            passes.append(Drop(names=gone))
        if ranks:
            passes.append(Factorize(ranks=ranks))
        return tuple(passes)

    def __str__(self) -> str:
        """What was taken away, in words."""
        words = []
        if self.gone:
            words.append(f"{len(self.gone)} block{'s' * (len(self.gone) > 1)} gone")
        if self.widths:
            words.append(f"{len(self.widths)} narrower")
        if self.ranks:
            words.append(f"{len(self.ranks)} of low rank")
        return ", ".join(words) or "whole"

    def to_json(self) -> dict[str, Json]:
        """Plain data, the inverse of `from_json`."""
        return {
            "gone": list(self.gone), "widths": dict(self.widths), "ranks": dict(self.ranks)
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Shape:
        """Read what `to_json` wrote."""
        return cls(tuple(data["gone"]), dict(data["widths"]), dict(data["ranks"]))


def rank_axis(layer: str) -> str:
    """The axis between the two factors of a layer."""
    return f"{layer}.reduce"
