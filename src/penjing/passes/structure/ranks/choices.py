"""Ranks: what each rank of a layer costs and keeps, and the ranks that lose least in all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from penjing.arith.kernel_factors import full_ranks, kept, kept_by_pairs, why_not
from penjing.arith.knapsack import choose
from penjing.errors import InputError
from penjing.measure.latency import INDIFFERENCE
from penjing.measure.latency_table import LatencyTable
from penjing.network.edits.checking.checks import INT32, is_integer, is_list

MOST_RANKS = 32
"""How many ranks of a layer and a scheme are examined at most."""
MOST_PAIRS = 12
"""How many first ranks of "tucker", likewise."""
TICKS = 4000
"""In how many units a budget is counted; each layer loses at most one of them to rounding."""
Shape = Sequence[int]


@dataclass(frozen=True)
class Cost:
    """What a layer, or the factors of one, cost for one sample.

    Attributes:
        macs, params: their numbers.
        ms: the milliseconds that a latency table predicts; infinite if it can't. 0 without a table,
            and of a layer in whose place it has nothing.
    """

    macs: int
    params: int
    ms: float = 0.0

    def of(self, what: str) -> float:
        """The cost that a budget counts."""
        return {"macs": self.macs, "params": self.params, "latency": self.ms}[what]

    def is_below(self, other: Cost, what: str) -> bool:
        """Whether a cost is lower than another one; a time must be so by more than 1 %."""
        margin = INDIFFERENCE if what == "latency" else 0.0
        return self.of(what) < (1 - margin) * other.of(what)


@dataclass(frozen=True)
class Choice:
    """One way to write a layer as factors.

    Attributes:
        scheme: one of `penjing.arith.kernel_factors.SCHEMES`.
        ranks: one rank, or two for "tucker".
        cost: the cost of the factors, without the bias.
        kept: the share of the energy of the layer's output that they keep, 0..1.
    """

    scheme: str
    ranks: tuple[int, ...]
    cost: Cost
    kept: float


@dataclass(frozen=True)
class Sizes:
    """The shapes that decide what a layer costs.

    Attributes:
        weight: the shape of its weight, (O, C, k..).
        before: the spatial sizes of its input. Of a linear layer, the number of positions.
        after: those of its output, likewise.
        layer: its name in the table.
        table: measured times, or None.
    """

    weight: Shape
    before: Shape
    after: Shape
    layer: str = ""
    table: LatencyTable | None = None

    def whole(self) -> Cost:
        """The cost of the layer itself."""
        ms = 0.0
        if self.table is not None and self.table.replaceable(self.layer):
            ms = self.table.whole()[self.layer]
        return Cost(math.prod(self.after) * math.prod(self.weight), math.prod(self.weight), ms)

    def cost(self, scheme: str, ranks: Sequence[int]) -> Cost:
        """The cost of its factors.

        >>> sizes = Sizes((16, 8, 3, 3), (10, 10), (10, 10))
        >>> sizes.whole(), sizes.cost("channel", [4])
        (Cost(macs=115200, params=1152, ms=0.0), Cost(macs=35200, params=352, ms=0.0))
        """
        ms: float | None = 0.0
        if self.table is not None:
            ms = self.table.in_place_of(self.layer, scheme, ranks)
        macs, params = self._counted(scheme, ranks)
        return Cost(macs, params, math.inf if ms is None else ms)

    def _counted(self, scheme: str, ranks: Sequence[int]) -> tuple[int, int]:
        outputs, inputs, *kernel = self.weight
        after, taps = math.prod(self.after), math.prod(kernel)
        rank = ranks[0]
        if scheme == "spatial":
            first, last = inputs * kernel[0] * rank, outputs * kernel[1] * rank
            return first * self.after[0] * self.before[1] + last * after, first + last
        if scheme == "tucker":
            first, core, last = inputs * rank, rank * ranks[1] * taps, outputs * ranks[1]
            macs = first * math.prod(self.before) + (core + last) * after
            return macs, first + core + last
        params = rank * (inputs * taps + outputs)
        return params * after, params


def choices(
    sizes: Sizes,
    weight: Tensor,
    moment: Tensor | None,
    schemes: Sequence[str],
    multiple: int,
    falls: Sequence[str],
) -> list[Choice]:
    """The ways to write a layer as factors that cost less than the layer.

    None of them costs as much as another one that keeps more. They are in the order of their cost.

    Args:
        sizes: the layer's.
        weight: its weight, float64.
        moment: the second moment of its windows, or None.
        schemes: the schemes that may be used.
        multiple: ranks are multiples of this.
        falls: the costs that have to fall: `"macs"`, `"params"`, `"latency"`. The first counts.
    """
    whole, best, what = sizes.whole(), 0.0, falls[0]
    cheaper = [
        choice
        for scheme in schemes
        if not why_not(scheme, sizes.weight)
        for choice in _ranked(scheme, sizes, weight, moment, multiple)
        if all(choice.cost.is_below(whole, cost) for cost in falls)
    ]
    frontier = []
    for choice in sorted(cheaper, key=lambda choice: (choice.cost.of(what), -choice.kept)):
        if choice.kept > best:
            best = choice.kept
            frontier.append(choice)
    return frontier


def _ranked(
    scheme: str, sizes: Sizes, weight: Tensor, moment: Tensor | None, multiple: int
) -> Iterator[Choice]:
    full = full_ranks(scheme, sizes.weight)
    if scheme != "tucker":
        shares = kept(scheme, weight, moment)
        for rank in _spaced(full[0], multiple, MOST_RANKS):
            yield Choice(scheme, (rank,), sizes.cost(scheme, [rank]), float(shares[rank - 1]))
        return
    firsts = _spaced(full[0], multiple, MOST_PAIRS)
    for first, shares in kept_by_pairs(weight, firsts, moment).items():
        for last in _spaced(len(shares), multiple, MOST_RANKS):
            cost = sizes.cost(scheme, [first, last])
            yield Choice(scheme, (first, last), cost, float(shares[last - 1]))


def _spaced(full: int, multiple: int, most: int) -> list[int]:
    """Multiples up to the full rank, evenly spaced if there are too many; the full rank itself if
    there is none."""
    ranks = list(range(multiple, full + 1, multiple)) or [full]
    step = -(-len(ranks) // most)
    return ranks[::-1][::step][::-1]


def by_energy(options: Sequence[Choice], least: float) -> Choice | None:
    """The cheapest choice that keeps a share of the energy; None if no choice does."""
    return next((choice for choice in options if choice.kept >= least), None)


def by_budget(
    options: Mapping[str, Sequence[Choice]],
    wholes: Mapping[str, Cost],
    most: float,
    what: str,
) -> dict[str, Choice | None]:
    """The choices that lose the least energy within a budget; None leaves a layer as it is.

    The loss is the sum over layers of the share of energy that is lost. With ResNet-20 at half of
    its MACs and no training it kept 90.19 of 91.83, and 85.63 at a third. Making the largest share
    as small as possible (L. Liebenwein et al., "Compressing Neural Networks: Towards Determining
    the Optimal Layer-wise Decomposition", 2021) kept 87.81 and 81.20.

    Args:
        options: by layer, its choices.
        wholes: by layer, its cost as it is.
        most: the largest sum of the costs of these layers.
        what: the cost: `"macs"`, `"params"` or `"latency"`.

    Raises:
        InputError: the cheapest choices cost more than the budget.
    """
    tick = max(most, 1e-9) / max(TICKS, 50 * len(options))
    costs, losses = [], []
    for name, mine in options.items():
        costs.append([wholes[name].of(what), *(choice.cost.of(what) for choice in mine)])
        losses.append([0.0, *(1 - choice.kept for choice in mine)])
    least = sum(map(min, costs))
    if least > most * (1 + 1e-9):
        raise InputError(f"the cheapest factors cost {least:g} {what}, more than {most:g}")
    ticks = [[math.ceil(cost / tick) for cost in row] for row in costs]
    budget = max(int(most / tick), sum(map(min, ticks)))
    picked = choose(ticks, losses, budget)
    return {
        name: mine[index - 1] if index else None
        for (name, mine), index in zip(options.items(), picked, strict=True)
    }


def as_lists(ranks: Any) -> dict[str, list[int]]:
    """The ranks of each layer as a list, as JSON gives them back.

    Raises:
        InputError: they aren't.
    """
    good = isinstance(ranks, Mapping) and all(isinstance(name, str) for name in ranks)
    pairs = list(ranks.items()) if good else []
    listed = {name: [rank] if isinstance(rank, int) else rank for name, rank in pairs}
    for rank in listed.values():
        good = good and is_list(rank) and len(rank) in (1, 2)
        good = good and all(is_integer(number, 1, INT32) for number in rank)
    if not good:
        raise InputError(
            "ranks must give for each layer a rank of 1 or more, or the two ranks of tucker, such "
            f"as {{'conv1': 8, 'conv2': [8, 12]}}; found {ranks!r}"
        )
    return {name: list(rank) for name, rank in listed.items()}
