"""Widths: which axes a pass may make narrower, and how many indices stay in each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from penjing.contract import LeftAlone
from penjing.errors import InputError
from penjing.network import Axes, Group
from penjing.passes.names import is_in, require_names

RANKINGS = ("per-axis", "global", "isomorphic")


@dataclass(frozen=True)
class Widths:
    """How much to remove; `PruneChannels` explains the attributes."""

    ratio: float = 0.5
    ranking: str = "per-axis"
    keep: int = 1
    multiple: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.ratio < 1:
            raise InputError(f"ratio must be in [0, 1), as the share to remove; found {self.ratio}")
        if self.ranking not in RANKINGS:
            raise InputError(
                f"ranking must be one of {', '.join(RANKINGS)}; found {self.ranking!r}"
            )
        if self.keep < 1 or self.multiple < 1:
            raise InputError(
                f"keep and multiple must be 1 or more; found {self.keep} and {self.multiple}"
            )

    def counts(self, scores: Mapping[str, Tensor], groups: Mapping[str, Group]) -> dict[str, int]:
        """The number of indices that stay in each axis.

        Args:
            scores: by axis, one score for each of its indices.
            groups: the axes by name.
        """
        ranked: dict[object, dict[str, Tensor]] = {}
        for name, importance in scores.items():
            key: object = {"per-axis": name, "isomorphic": _kind(groups[name])}.get(self.ranking)
            ranked.setdefault(key, {})[name] = importance / importance.mean().clamp_min(1e-30)
        wanted: dict[str, int] = {}
        for together in ranked.values():
            if self.ranking == "per-axis":
                wanted |= {
                    key: len(importance) - math.floor(len(importance) * self.ratio + 1e-9)
                    for key, importance in together.items()
                }
                continue
            everything = torch.cat(list(together.values()))
            cut = everything.sort().values[int(self.ratio * len(everything))]
            wanted |= {
                key: max(int((importance >= cut).sum()), len(importance) // 10)
                for key, importance in together.items()
            }
        return {name: self._rounded(count, len(scores[name])) for name, count in wanted.items()}

    def choices(self, total: int, least: int) -> list[int]:
        """The sizes that an axis of `total` indices may take, from `total` down to `least`."""
        floor = self._rounded(least, total)
        return [total, *range(total - 1 - (total - 1) % self.multiple, floor - 1, -self.multiple)]

    def too_narrow(self, groups: Sequence[Group]) -> tuple[LeftAlone, ...]:
        """The axes that stay as they are because they are no wider than `multiple`."""
        return tuple(
            LeftAlone(group.name, f"it has {group.size} channels and multiple is {self.multiple}")
            for group in groups
            if self.multiple > 1 and group.size <= self.multiple
        )

    def _rounded(self, count: int, total: int) -> int:
        count = max(count, self.keep, 1)
        if self.multiple > 1:
            count = -(-count // self.multiple) * self.multiple if self.multiple < total else total
        return min(count, total)


def allowed(
    axes: Axes, skip: Sequence[str], skip_mixed: bool, named: Iterable[str] = ()
) -> tuple[list[Group], tuple[LeftAlone, ...]]:
    """The axes that may shrink, and the ones that may not, each with the reason.

    Args:
        axes: the axes of a network.
        skip: names of axes, or prefixes of layer names, to leave alone.
        skip_mixed: leave alone every axis over which a statistic is computed.
        named: names of axes that may shrink although they only do if asked for.

    Raises:
        InputError: `skip` names an unknown axis.
    """
    require_names("skip", skip, list(axes), "axis")
    asked = {name: axes[name] for name in named if name in axes and axes[name].able}
    chosen, left = [], [each for each in axes.left_alone() if each.what not in asked]
    for name, group in {**axes.free, **asked}.items():
        if any(is_in(name, skipped) for skipped in skip):
            left.append(LeftAlone(name, "it is listed in skip"))
        elif skip_mixed and group.mixed:
            left.append(LeftAlone(name, str(group.mixed[0])))
        else:
            chosen.append(group)
    return chosen, tuple(left)


def _kind(group: Group) -> tuple[tuple[str, int], ...]:
    """The role of an axis in the tensors that it touches; axes of one role are ranked together."""
    return tuple(sorted((site.tensor.rpartition(".")[2], site.dim) for site in group.sites))
