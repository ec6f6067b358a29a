"""PruneChannels: remove the least important channels of every axis that can shrink."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from penjing.contract import Plan
from penjing.errors import InputError
from penjing.network import Axes, Group, Network, find_axes
from penjing.passes.conditions import Condition
from penjing.passes.contract import Pass, Progress
from penjing.passes.counted import counted
from penjing.passes.names import require_names
from penjing.passes.structure.channels.budget import Budget, counts_that_stay
from penjing.passes.structure.channels.importance import (
    CRITERIA,
    NEEDS_GRADIENTS,
    Criterion,
    gradients_of,
    importances,
)
from penjing.passes.structure.channels.widths import Widths, allowed
from penjing.tasks.task import Task


@dataclass(frozen=True)
class PruneChannels(Pass):
    """Remove whole channels, neurons and attention heads.

    The network stays dense and becomes narrower, so a runtime needs no special kernels for it.
    Channels that are tied together, for example by a residual connection or a depthwise
    convolution, form one axis and are removed together. Each index of an axis gets one score from
    the chosen criterion, and the indices with the lowest scores go. A weight w_OI keeps some of its
    rows and columns: w[kept_O][:, kept_I].

    Pruning pays where a narrower layer is measurably faster. It costs accuracy at once, so follow
    it with `Compensate`, `Tune` or both. The criteria "taylor" and "fisher" need labels and a loss
    with gradients; the others need no data.

    Attributes:
        ratio: the share of each axis to remove, in [0, 1).
        importance: the criterion: `"l1"`, `"l2"`, `"l1+l2"`, `"taylor"` or `"fisher"`; see
            `penjing.passes.structure.channels.importance` for the formulas.
        ranking: `"per-axis"` removes the same share from every axis. `"global"` ranks the indices
            of all axes together, after dividing the scores of each axis by their mean, and
            removes at most nine tenths of any axis. `"isomorphic"` ranks together only those axes
            that have the same role in the same kinds of tensors.
        keep: the smallest number of indices to leave in an axis, 1 or more.
        multiple: round the number of indices that stay up to a multiple of this, 1 or more, where
            the axis is large enough. A target's `channel_multiple` is a good value.
        skip: names of axes, or prefixes of layer names, to leave alone.
        skip_mixed: leave alone every axis over which a statistic is computed, for example by a
            layer norm.
        samples: the number of training samples for "taylor" and "fisher".
        budget: replaces `ratio` and `ranking`: a `Budget`, or a mapping of its fields, that says
            which share of the MACs, the parameters or the measured latency may remain. Each axis
            then gets its own ratio, chosen so that the least importance is lost.
        widths: replaces `ratio` and `ranking`: by axis, the number of indices that stay. Other axes
            stay as they are. The bins of a distribution, which constants read after a softmax, only
            shrink if this names them.

    Raises:
        InputError: an option is out of range, `skip` or `widths` name something unknown or an axis
            that can't shrink, or the budget can't be reached.

    Source: H. Li, A. Kadav, I. Durdanovic, H. Samet, H. P. Graf, "Pruning Filters for Efficient
    ConvNets", 2016; G. Fang, X. Ma, M. Song, M. B. Mi, X. Wang, "DepGraph: Towards Any Structural
    Pruning", 2023 (tied channels); G. Fang, X. Ma, M. B. Mi, X. Wang, "Isomorphic Pruning for
    Vision Models", 2024 (the ranking of that name).

    >>> import penjing, torch
    >>> from torch import nn
    >>> model = nn.Sequential(
    ...     nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 4))
    >>> data = penjing.Arrays(torch.randn(32, 3, 8, 8), torch.arange(32) % 4)
    >>> task = penjing.Task(model, data.x[:2], train=data, test=data)
    >>> network = penjing.capture(model, task.example)
    >>> prune = penjing.passes.PruneChannels(0.5, skip=("2",))
    >>> print(prune.plan(network, task).summary)
    removes 4 of 8 channels in 1 axis
    >>> pruned = prune(network, task)
    >>> [tuple(pruned.get_parameter(f"{layer}.weight").shape) for layer in (0, 2)]
    [(4, 3, 3, 3), (8, 4, 3, 3)]
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
    widths: Mapping[str, int] = field(default_factory=dict)

    provides: ClassVar[frozenset[Condition]] = frozenset({Condition.REDUCED})

    def __post_init__(self) -> None:
        self._widths()
        if self.importance not in CRITERIA:
            raise InputError(
                f"importance must be one of {', '.join(CRITERIA)}; found {self.importance!r}"
            )
        object.__setattr__(self, "skip", tuple(self.skip))
        object.__setattr__(self, "widths", dict(self.widths))
        object.__setattr__(self, "budget", Budget.read(self.budget, self._widths()))
        if self.widths and (self.budget or self._widths() != Widths()):
            raise InputError(
                "widths, budget, ratio, ranking, keep and multiple all say how much to remove; "
                "beside widths, give none of the others"
            )

    @property
    def requires(self) -> frozenset[Condition]:
        """Labels and a loss with gradients, if the criterion uses gradients; otherwise nothing."""
        if self.importance not in NEEDS_GRADIENTS:
            return frozenset()
        return frozenset({Condition.CALIBRATION, Condition.LABELS, Condition.GRADIENTS})

    def decide(self, network: Network, task: Task, progress: Progress) -> Plan:
        """Score the indices of every axis that can shrink, and choose those that stay."""
        axes = find_axes(network)
        chosen, left = allowed(axes, self.skip, self.skip_mixed, self.widths)
        if self.widths:
            chosen = self._named(axes, chosen)
        gradients = None
        if self.importance in NEEDS_GRADIENTS:
            squared = self.importance == "fisher"
            gradients = gradients_of(network, task, self.samples, squared)
        groups = {group.name: group for group in chosen}
        scores = importances(network, groups, self.importance, gradients)
        counts = dict(self.widths)
        if not counts:
            counts = counts_that_stay(self.budget, self._widths(), axes, scores)
        keep = {
            name: sorted(torch.topk(scores[name], count).indices.tolist())
            for name, count in counts.items()
            if count < len(scores[name])
        }
        removed = sum(len(scores[name]) - len(index) for name, index in keep.items())
        summary = (
            f"removes {removed} of {sum(map(len, scores.values()))} channels in "
            f"{counted(len(keep), 'axis', 'axes')}"
        )
        changed = [g for g in chosen if g.name in keep and g.mixed]
        if changed:
            summary += "; this changes statistics of the network: " + "; ".join(
                f"{group.name}: {group.mixed[0]}" for group in changed[:3]
            )
        edits = [{"edit": "shrink", "axes": keep}] if keep else []
        return self._plan(edits, summary, (*left, *self._widths().too_narrow(chosen)))

    def _named(self, axes: Axes, able: Sequence[Group]) -> list[Group]:
        """The axes that `widths` names."""
        require_names("widths", self.widths, list(axes), "axis")
        groups = {group.name: group for group in able}
        for name, count in self.widths.items():
            if name not in groups:
                why = f": {axes[name].pins[0]}" if axes[name].pins else ""
                raise InputError(f"widths names {name!r}, which can't shrink on its own{why}")
            if not 1 <= count <= groups[name].size:
                raise InputError(
                    f"widths[{name!r}] must be from 1 to {groups[name].size}; found {count}"
                )
        return [groups[name] for name in self.widths]

    def _widths(self) -> Widths:
        return Widths(self.ratio, self.ranking, self.keep, self.multiple)
