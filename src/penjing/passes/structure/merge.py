"""Merge: replace channels by combinations of the channels that stay, without data."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, fx

from penjing.arith.elimination import combinations, eliminated, nearest
from penjing.contract import LeftAlone, Plan
from penjing.errors import InputError
from penjing.network import Axes, Group, Network, carry_out, find_axes
from penjing.network.analysis.passage import Passage, passage
from penjing.network.axes.groups import Site
from penjing.network.edits.merge import Combination, merge, read_by_index, takes_shift
from penjing.passes.conditions import Condition
from penjing.passes.contract import Pass, Progress
from penjing.passes.counted import counted
from penjing.passes.structure.channels.budget import Budget, counts_that_stay
from penjing.passes.structure.channels.expectation import (
    Known,
    Moments,
    spatial_correlation,
    written,
)
from penjing.passes.structure.channels.importance import importances
from penjing.passes.structure.channels.widths import Widths, allowed
from penjing.tasks.task import Task

SELECTIONS = ("similarity", "importance")
TARGETS = ("all", "nearest")
RIDGE = 1e-6


@dataclass(frozen=True)
class Merge(Pass):
    """Remove channels and let the channels that stay take over their contribution.

    The pass estimates the mean m_N and the covariance C_NN of the N activations z of an axis from
    weights and norms alone (`penjing.passes.structure.channels.expectation`). It replaces z by its
    best linear estimate from the activations that stay:

        z ~ A z_keep + b,    A = C[:, keep] C[keep, keep]^-1,    b = m - A m_keep

    A layer that reads w z then reads (w A) z_keep. Its bias takes w b. A batch norm behind it is
    scaled to the share of the variance that is left. If nothing can take w b, the pass uses
    C + m m^T for C, and b is zero. The merge is exact if, before a ReLU, each removed channel is a
    positive multiple of one that stays.

    Merging pays where no training data is at hand, or instead of `PruneChannels` in front of
    `Compensate`. It needs a network that isn't quantized. It leaves alone every axis that more
    than one layer writes, and every axis that passes through anything except elementwise functions
    and pooling; the plan names them.

    Attributes:
        ratio, ranking, keep, multiple, skip, budget: as in `PruneChannels`.
        selection: which channels stay. `"similarity"` removes channels one by one, each time the
            one that the others replace best. `"importance"` keeps those with the largest l2 norm.
        into: the channels that take over: `"all"` that stay, or only the `"nearest"` one, with a
            positive factor.

    Raises:
        InputError: an option is out of range, `skip` names something unknown, or the budget can't
            be reached.

    Source: W. Kim, S. Kim, M. Park, G. Jeon, "Neuron Merging: Compensating for Pruned Neurons",
    2020 (`into="nearest"`); K. Jordan, H. Sedghi, O. Saukh, R. Entezari, B. Neyshabur, "REPAIR:
    REnormalizing Permuted Activations for Interpolation Repair", 2023 (the variance). The use of
    Gaussian moments instead of data is penjing's own.

    >>> import penjing, torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    >>> with torch.no_grad():  # the last eight neurons are twice the first eight
    ...     for tensor in (model[0].weight, model[0].bias):
    ...         _ = tensor[8:].copy_(2 * tensor[:8])
    >>> data = penjing.Arrays(torch.randn(64, 8), torch.arange(64) % 4)
    >>> task = penjing.Task(model, data.x[:2], train=data, test=data)
    >>> network = penjing.capture(model, task.example)
    >>> merge = penjing.passes.Merge(0.5)
    >>> print(merge.plan(network, task).summary)
    merges 8 of 16 channels into the others, in 1 axis
    >>> merged = merge(network, task)
    >>> (merged(data.x) - network(data.x)).abs().max().item() < 1e-3
    True
    """

    ratio: float = 0.5
    ranking: str = "per-axis"
    keep: int = 1
    multiple: int = 1
    skip: tuple[str, ...] = ()
    selection: str = "similarity"
    into: str = "all"
    budget: Budget | None = None

    requires: ClassVar[frozenset[Condition]] = frozenset({Condition.FLOAT})
    provides: ClassVar[frozenset[Condition]] = frozenset({Condition.REDUCED})

    def __post_init__(self) -> None:
        self._widths()
        if self.selection not in SELECTIONS:
            raise InputError(
                f"selection must be {' or '.join(SELECTIONS)}; found {self.selection!r}"
            )
        if self.into not in TARGETS:
            raise InputError(f"into must be {' or '.join(TARGETS)}; found {self.into!r}")
        object.__setattr__(self, "skip", tuple(self.skip))
        object.__setattr__(self, "budget", Budget.read(self.budget, self._widths()))

    def decide(self, network: Network, task: Task, progress: Progress) -> Plan:
        """Choose the channels that stay, for every axis that can be merged."""
        axes = find_axes(network)
        groups, left = allowed(axes, self.skip, skip_mixed=False)
        expected, alone = _expected(network, axes)
        by_name = {group.name: group for group in groups if group.name in expected}
        scores, widths = importances(network, by_name, "l2"), self._widths()
        keep = {
            name: self._choose(network, by_name[name], *expected[name], scores[name], count)
            for name, count in counts_that_stay(self.budget, widths, axes, scores).items()
            if count < len(scores[name])
        }
        edits = [{"edit": "shrink", "axes": keep}] if keep else []
        total = sum(by_name[name].size - len(stays) for name, stays in keep.items())
        summary = (
            f"merges {total} of {sum(map(len, scores.values()))} channels into the others, in "
            f"{counted(len(keep), 'axis', 'axes')}"
        )
        skipped = {entry.what for entry in left}
        alone = tuple(entry for entry in alone if entry.what not in skipped)
        left = (*left, *alone, *widths.too_narrow(list(by_name.values())))
        return self._plan(edits, summary, left)

    def apply(
        self, network: Network, plan: Plan, task: Task, progress: Progress | None = None
    ) -> Network:
        """Write the combinations into the layers that read them, then drop the merged channels."""
        new = copy.deepcopy(network)
        chosen: Mapping[str, list[int]] = plan.edits[0]["axes"] if plan.edits else {}
        axes = find_axes(new)
        expected, _ = _expected(new, axes)
        made = {
            name: self._combination(new, *expected[name], list(stays))
            for name, stays in chosen.items()
        }
        left = {  # before any weight is changed
            name: _variance_left(new, axes[name], *expected[name], made[name]) for name in chosen
        }
        for name in chosen:
            merge(new, axes[name], expected[name][0].readers, made[name], left[name])
        return carry_out(new, plan)

    def _choose(
        self, network: Network, group: Group, way: Passage, moments: Moments, score: Tensor,
        count: int,
    ) -> list[int]:  # fmt: skip
        if self.selection == "importance":
            return sorted(torch.topk(score, count).indices.tolist())
        read = sum(_read(network, group, node, site) for node, site in way.readers)
        assert isinstance(read, Tensor)
        return eliminated(moments.covariance, read, count, RIDGE)

    def _combination(
        self, network: Network, way: Passage, moments: Moments, keep: list[int]
    ) -> Combination:
        solve = combinations if self.into == "all" else nearest
        mean, shared = moments
        if not all(takes_shift(network, node) for node, _ in way.readers):  # no place for a shift
            mean, shared = torch.zeros_like(mean), shared + torch.outer(mean, mean)
        weights = solve(shared, keep, RIDGE)
        return Combination(keep, weights, mean - weights @ mean[keep])

    def _widths(self) -> Widths:
        return Widths(self.ratio, self.ranking, self.keep, self.multiple)


def _expected(
    network: Network, axes: Axes
) -> tuple[dict[str, tuple[Passage, Moments]], tuple[LeftAlone, ...]]:
    """The passage and the moments of each axis that can be merged, in the order of the graph.

    Axes that stay whole are included, because later axes depend on their moments.
    """
    ways, alone = {}, []
    for group in axes.free.values():
        way = passage(network, group)
        if isinstance(way, str):
            alone.append(LeftAlone(group.name, why=way))
        else:
            ways[group.name] = way
    order = {node: place for place, node in enumerate(network.graph.nodes)}
    known: dict[fx.Node, Known] = {}
    expected = {}
    for name in sorted(ways, key=lambda name: order[ways[name].layer]):
        moments = written(network, ways[name], known)
        expected[name] = ways[name], moments
        for node, site in ways[name].readers:
            read = read_by_index(network, axes[name], site)
            if read.shape[1:3].numel() == network.tensor(site.tensor).shape[1]:  # and nothing else
                known[node] = Known(moments, read)
    return expected, tuple(alone)


def _read(network: Network, group: Group, node: fx.Node, site: Site) -> Tensor:
    """w w^T of a reader, (n, n), with the spatial correlation of its kernel's inputs."""
    weight = read_by_index(network, group, site)
    alike = spatial_correlation(node, network.tensor(site.tensor))
    taps = weight.flatten(3) if weight.dim() > 3 else weight[..., None]
    return torch.einsum("onmk,kl,opml->np", taps, alike, taps)


def _variance_left(
    network: Network, group: Group, way: Passage, moments: Moments, made: Combination
) -> list[Tensor]:
    """By reader, the share of each output's variance that remains after the merge.

    The tensor is empty for a reader that reads more than this axis.
    """
    inner = moments.covariance[made.keep][:, made.keep]
    guessed = made.weights @ inner @ made.weights.T
    shares = []
    for node, site in way.readers:
        if site.expression is not group.axis:
            shares.append(torch.empty(0))
            continue
        weight = network.tensor(site.tensor).detach().double().cpu()
        taps = weight.flatten(2) if weight.dim() > 2 else weight[..., None]
        turned = taps @ spatial_correlation(node, weight)
        before, after = (
            torch.einsum("oik,ij,ojk->o", turned, covariance, taps)
            for covariance in (moments.covariance, guessed)
        )
        shares.append((after / before.clamp_min(1e-30)).clamp(0.01, 1.0))
    return shares
