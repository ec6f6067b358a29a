"""PruneChannels: remove the least important indices of every axis that can shrink."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from penjing.contract import LeftAlone, Plan
from penjing.errors import InputError
from penjing.network import Axes, Group, Network, find_axes
from penjing.passes.contract import Pass
from penjing.passes.importance import (
    CRITERIA,
    NEEDS_GRADIENTS,
    Criterion,
    gradients_of,
    importances,
)
from penjing.task import Task

RANKINGS = ("per-axis", "global", "isomorphic")


@dataclass(frozen=True)
class PruneChannels(Pass):
    """Remove whole channels, neurons and heads: the network stays dense and gets narrower.

    Attributes:
        ratio: share (0..1) of indices to remove, at most.
        importance: the criterion, see `penjing.passes.importance`.
        ranking: `"per-axis"` removes the share from each axis; `"global"` ranks the indices of
            all axes together (each axis' scores are divided by their mean) and removes at most
            nine tenths of any; `"isomorphic"` does so among axes that play the same part in the
            same kinds of tensors (Fang, Ma, Mi, Wang, "Isomorphic Pruning for Vision Models",
            2024).
        keep: the least indices to leave in any axis.
        multiple: what is left of an axis is rounded up to a multiple of this, where the axis is
            larger; take it from the target's `channel_multiple`.
        skip: names of axes, or prefixes of layers, to leave alone.
        skip_mixed: leave alone axes over which a statistic is computed (layer norm).
        samples: how many training samples "taylor" and "fisher" look at.

    Raises:
        InputError: an option is out of range, or `skip` names nothing.
    """

    ratio: float = 0.5
    importance: Criterion = "l2"
    ranking: str = "per-axis"
    keep: int = 1
    multiple: int = 1
    skip: tuple[str, ...] = ()
    skip_mixed: bool = False
    samples: int = 512

    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        if not 0 <= self.ratio < 1:
            raise InputError(f"ratio must be in [0, 1), the share to remove; found {self.ratio}")
        if self.importance not in CRITERIA:
            raise InputError(
                f"importance must be one of {', '.join(CRITERIA)}; found {self.importance!r}"
            )
        if self.ranking not in RANKINGS:
            raise InputError(f"ranking must be {', '.join(RANKINGS)}; found {self.ranking!r}")
        if self.keep < 1 or self.multiple < 1:
            raise InputError(
                f"keep and multiple must be 1 or more; found {self.keep} and {self.multiple}"
            )
        object.__setattr__(self, "skip", tuple(self.skip))

    def plan(self, network: Network, task: Task) -> Plan:
        """Score every axis that can shrink and choose what stays."""
        axes = find_axes(network)
        chosen, left = self._choose(axes)
        gradients = None
        if self.importance in NEEDS_GRADIENTS:
            squared = self.importance == "fisher"
            gradients = gradients_of(network, task, self.samples, squared)
        groups = {group.name: group for group in chosen}
        scores = importances(network, groups, self.importance, gradients)
        counts = self._counts(scores, groups)
        keep = {
            name: sorted(torch.topk(scores[name], count).indices.tolist())
            for name, count in counts.items()
            if count < len(scores[name])
        }
        removed = sum(len(scores[name]) - len(index) for name, index in keep.items())
        summary = f"{removed} of {sum(map(len, scores.values()))} indices in {len(keep)} axes go"
        changed = [g for g in chosen if g.name in keep and g.mixed]
        if changed:
            summary += "; changes a statistic: " + "; ".join(
                f"{group.name}: {group.mixed[0]}" for group in changed[:3]
            )
        edits: tuple[Mapping[str, object], ...] = (
            ({"edit": "shrink", "axes": keep},) if keep else ()
        )
        options = asdict(self) | {"skip": list(self.skip)}
        return Plan(type(self).__name__, options, edits, summary if keep else "", left)

    def _choose(self, axes: Axes) -> tuple[list[Group], tuple[LeftAlone, ...]]:
        for name in self.skip:
            if not any(_is_in(one, name) for one in axes):
                raise InputError(
                    f"skip names {name!r}, which is no axis; there are {', '.join(axes)}"
                )
        chosen, left = [], list(axes.pinned())
        for name, group in axes.free.items():
            if any(_is_in(name, one) for one in self.skip):
                left.append(LeftAlone(name, "named in skip"))
            elif self.skip_mixed and group.mixed:
                left.append(LeftAlone(name, str(group.mixed[0])))
            else:
                chosen.append(group)
        return chosen, tuple(left)

    def _counts(self, scores: Mapping[str, Tensor], groups: Mapping[str, Group]) -> dict[str, int]:
        """How many indices stay in each axis."""
        ranked: dict[object, dict[str, Tensor]] = {}
        for name, one in scores.items():
            key: object = {"per-axis": name, "isomorphic": _kind(groups[name])}.get(self.ranking)
            ranked.setdefault(key, {})[name] = one / one.mean().clamp_min(1e-30)
        wanted: dict[str, int] = {}
        for together in ranked.values():
            if self.ranking == "per-axis":
                wanted |= {
                    key: len(one) - math.floor(len(one) * self.ratio + 1e-9)
                    for key, one in together.items()
                }
                continue
            everything = torch.cat(list(together.values()))
            cut = everything.sort().values[int(self.ratio * len(everything))]
            wanted |= {
                key: max(int((one >= cut).sum()), len(one) // 10) for key, one in together.items()
            }
        return {name: self._rounded(count, len(scores[name])) for name, count in wanted.items()}

    def _rounded(self, count: int, total: int) -> int:
        count = max(count, self.keep, 1)
        if self.multiple < total:
            count = -(-count // self.multiple) * self.multiple
        else:
            count = total if self.multiple > 1 else count
        return min(count, total)


def _kind(group: Group) -> tuple[tuple[str, int], ...]:
    """What an axis is to the tensors that it touches, so that like can be ranked with like."""
    return tuple(sorted((site.tensor.rpartition(".")[2], site.dim) for site in group.sites))


def _is_in(axis: str, name: str) -> bool:
    return axis == name or axis.startswith((f"{name}.", f"{name}["))
