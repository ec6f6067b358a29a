"""Merge: channels become combinations of the channels that stay, with no data."""

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
from penjing.passes.structure.budget import Budget, counts_that_stay
from penjing.passes.structure.expectation import Known, Moments, spatial_correlation, written
from penjing.passes.structure.importance import importances
from penjing.passes.structure.widths import Widths, allowed
from penjing.tasks.task import Task

SELECTIONS = ("similarity", "importance")
TARGETS = ("all", "nearest")
RIDGE = 1e-6


@dataclass(frozen=True)
class Merge(Pass):
    """Merge channels into those that stay; the layers that read them take the sums.

    From weights and norms alone, the values z of an axis are expected to have mean m and covariance
    C (`penjing.passes.structure.expectation`). What goes is replaced by its best guess from what
    stays,

        z ~ A z_keep + b,    A = C[:, keep] C[keep, keep]^-1,    b = m - A m_keep

    so a layer that read w z reads (w A) z_keep, its bias takes w b, and a batch norm behind it the
    share of the variance that is left; where nothing can take w b, C + m m^T stands for C and b is
    zero. Where a channel is a positive multiple of another that stays, before ReLU, that is exact.
    Axes written by more than one layer, or passed through anything but functions of one number and
    pooling, are left alone and named.

    Attributes:
        ratio, ranking, keep, multiple, skip, budget: as for `PruneChannels`.
        selection: which channels stay: `"similarity"` removes, one by one, the channel whose loss
            the readers feel least once the others make up for it; `"importance"` keeps the largest
            l2 norms.
        into: `"all"` channels that stay take part; or the `"nearest"` alone, by a positive scale.

    Raises:
        InputError: an option is out of range, or `skip` names nothing.

    Source: for `into="nearest"` W. Kim, S. Kim, M. Park, G. Jeon, "Neuron Merging: Compensating for
    Pruned Neurons", 2020; for the variance K. Jordan, H. Sedghi, O. Saukh, R. Entezari, B.
    Neyshabur, "REPAIR: REnormalizing Permuted Activations for Interpolation Repair", 2023. Gaussian
    moments in the place of data are ours.
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
    provides: ClassVar[frozenset[Condition]] = frozenset({Condition.REMOVED})

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

    def decide(self, network: Network, task: Task) -> Plan:
        """For every axis that can be merged, which channels stay."""
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
        summary = f"{total} channels in {len(keep)} axes become combinations of what stays"
        skipped = {entry.what for entry in left}
        alone = tuple(entry for entry in alone if entry.what not in skipped)
        left = (*left, *alone, *widths.too_narrow(list(by_name.values())))
        return self._plan(edits, summary, left)

    def apply(
        self, network: Network, plan: Plan, task: Task, progress: Progress | None = None
    ) -> Network:
        """Let the readers take the combinations, on a copy, and drop what went."""
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
        if not all(takes_shift(network, node) for node, _ in way.readers):  # the weights take all
            mean, shared = torch.zeros_like(mean), shared + torch.outer(mean, mean)
        weights = solve(shared, keep, RIDGE)
        return Combination(keep, weights, mean - weights @ mean[keep])

    def _widths(self) -> Widths:
        return Widths(self.ratio, self.ranking, self.keep, self.multiple)


def _expected(
    network: Network, axes: Axes
) -> tuple[dict[str, tuple[Passage, Moments]], tuple[LeftAlone, ...]]:
    """The way and the moments of each axis that can be merged, in the order of the graph; of one
    that is to stay whole too, because they say what later ones are made of."""
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
    """w w^T of a reader, (n, n), over what its kernel sees."""
    weight = read_by_index(network, group, site)
    alike = spatial_correlation(node, network.tensor(site.tensor))
    taps = weight.flatten(3) if weight.dim() > 3 else weight[..., None]
    return torch.einsum("onmk,kl,opml->np", taps, alike, taps)


def _variance_left(
    network: Network, group: Group, way: Passage, moments: Moments, made: Combination
) -> list[Tensor]:
    """By reader, the share of each output's variance that the combination leaves; empty where the
    reader sees more than this axis."""
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
