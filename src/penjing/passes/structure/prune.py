"""PruneChannels: remove the least important indices of every axis that can shrink."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from penjing.contract import Plan
from penjing.errors import InputError
from penjing.network import Network, find_axes
from penjing.passes.conditions import Condition
from penjing.passes.contract import Pass
from penjing.passes.structure.budget import Budget, counts_that_stay
from penjing.passes.structure.importance import (
    CRITERIA,
    NEEDS_GRADIENTS,
    Criterion,
    gradients_of,
    importances,
)
from penjing.passes.structure.widths import Widths, allowed
from penjing.tasks.task import Task


@dataclass(frozen=True)
class PruneChannels(Pass):
    """Remove whole channels, neurons and heads: the network stays dense and gets narrower.

    Attributes:
        ratio: share (0..1) of indices to remove, at most.
        importance: the criterion, see `penjing.passes.structure.importance`.
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
        budget: instead of `ratio` and `ranking`: how much may be left of the MACs, the parameters
            or the measured latency; a `Budget` or a mapping of its attributes. Each axis then gets
            a ratio of its own, so that least importance is lost.

    Raises:
        InputError: an option is out of range, `skip` names nothing, or the budget can't be reached.
    """

    ratio: float = 0.5
    importance: Criterion = "l2"
    ranking: str = "per-axis"
    keep: int = 1
    multiple: int = 1
    skip: tuple[str, ...] = ()
    skip_mixed: bool = False
    samples: int = 512
    budget: Budget | None = None

    provides: ClassVar[frozenset[Condition]] = frozenset({Condition.REMOVED})

    def __post_init__(self) -> None:
        self._widths()
        if self.importance not in CRITERIA:
            raise InputError(
                f"importance must be one of {', '.join(CRITERIA)}; found {self.importance!r}"
            )
        object.__setattr__(self, "skip", tuple(self.skip))
        object.__setattr__(self, "budget", Budget.read(self.budget, self._widths()))

    @property
    def requires(self) -> frozenset[Condition]:
        """Nothing, unless the criterion goes by gradients of the loss."""
        if self.importance not in NEEDS_GRADIENTS:
            return frozenset()
        return frozenset({Condition.CALIBRATION, Condition.LABELS, Condition.GRADIENTS})

    def decide(self, network: Network, task: Task) -> Plan:
        """Score every axis that can shrink and choose what stays."""
        axes = find_axes(network)
        chosen, left = allowed(axes, self.skip, self.skip_mixed)
        gradients = None
        if self.importance in NEEDS_GRADIENTS:
            squared = self.importance == "fisher"
            gradients = gradients_of(network, task, self.samples, squared)
        groups = {group.name: group for group in chosen}
        scores = importances(network, groups, self.importance, gradients)
        counts = counts_that_stay(self.budget, self._widths(), axes, scores)
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
        edits = [{"edit": "shrink", "axes": keep}] if keep else []
        return self._plan(edits, summary, (*left, *self._widths().too_narrow(chosen)))

    def _widths(self) -> Widths:
        return Widths(self.ratio, self.ranking, self.keep, self.multiple)
