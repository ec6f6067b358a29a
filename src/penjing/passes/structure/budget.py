"""Budget: how much may be left, as data, and the widths that keep it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import Tensor

from penjing.errors import InputError
from penjing.measure.cost_model import CostModel, cost_in_macs, cost_in_params
from penjing.measure.latency_table import LatencyTable
from penjing.network import Axes, Group
from penjing.network.graph.qparams import scale_names
from penjing.passes.structure.allocation import Allocation
from penjing.passes.structure.widths import Widths

What = Literal["macs", "params", "latency"]
WHATS: tuple[str, ...] = get_args(What)
LEAST_SHARE = 0.1
"""Of an axis, unless the budget can't be reached otherwise."""


@dataclass(frozen=True)
class Budget:
    """At most this share of what the network costs now.

    Attributes:
        what: `"macs"` of a sample, `"params"`, or the `"latency"` that `table` predicts.
        share: what may be left of it, in (0, 1].
        table: measured times of the layers, for `"latency"`; see
            `penjing.tools.latency_table.latency_table`.

    Raises:
        InputError: an option is out of range, or latency comes without a table.

    >>> Budget("macs", 0.5)
    Budget(what='macs', share=0.5, table=None)
    """

    what: What
    share: float
    table: LatencyTable | None = None

    def __post_init__(self) -> None:
        if self.what not in WHATS:
            raise InputError(f"budget must be of {', '.join(WHATS)}; found {self.what!r}")
        if not 0 < self.share <= 1:
            raise InputError(
                f"budget share must be in (0, 1], what may be left; found {self.share}"
            )
        if isinstance(self.table, Mapping):
            object.__setattr__(self, "table", LatencyTable(**self.table))
        if (self.what == "latency") != (self.table is not None):
            raise InputError(
                "a budget of latency, and no other, needs a table of the layers' times: make it "
                "with penjing.tools.latency_table.latency_table"
            )

    @classmethod
    def read(cls, value: Any, widths: Widths) -> Budget | None:
        """A budget, or one as a mapping of its attributes as JSON gives it, or None.

        Raises:
            InputError: it is no budget, or `widths` say how much goes as well.
        """
        if value is None:
            return None
        for name in ("ratio", "ranking"):
            if getattr(widths, name) != getattr(Widths, name):
                raise InputError(
                    f"{name} {getattr(widths, name)!r} and a budget both say how much goes; give "
                    "one of them"
                )
        if isinstance(value, cls):
            return value
        try:
            return cls(**value)
        except TypeError as error:
            raise InputError(
                f"budget must be like {{'what': 'macs', 'share': 0.5}}; found {value!r}"
            ) from error

    def cost_model(self, axes: Axes) -> CostModel:
        """What the network costs, as a function of its widths."""
        if self.table is not None:
            return self.table.cost_model(axes)
        return cost_in_macs(axes) if self.what == "macs" else cost_in_params(axes)

    def counts(self, axes: Axes, scores: Mapping[str, Tensor], widths: Widths) -> dict[str, int]:
        """How many indices stay in each axis that has scores, so that least importance is lost.

        Args:
            scores: one for each index of the axes that may shrink, larger stays.
            widths: gives `keep` and `multiple`; at least a tenth of each axis stays, unless the
                budget can't be reached otherwise.

        Raises:
            InputError: the budget can't be reached; the line says how far it goes.
        """
        cost_model = self.cost_model(axes)
        whole = cost_model.total({})
        most = self.share * whole
        for share in (LEAST_SHARE, 0.0):
            allowed = {
                name: widths.choices(len(importance), math.ceil(share * len(importance)))
                for name, importance in scores.items()
            }
            lost = {
                name: _lost(importance, allowed[name], _weights_of(axes[name], axes))
                for name, importance in scores.items()
            }
            allocation = Allocation(cost_model, allowed, lost)
            if allocation.cut(most):
                allocation.fill(most)
                return {name: allocation.counts[name] for name in scores}
        raise InputError(
            f"a budget of {self.share:.1%} of the {self.what} can't be reached: with all "
            f"{len(scores)} axes that may shrink at their floors {allocation.cost / whole:.1%} is "
            "left; skip fewer axes, or take a smaller keep or multiple"
        )


def counts_that_stay(
    budget: Budget | None, widths: Widths, axes: Axes, scores: Mapping[str, Tensor]
) -> dict[str, int]:
    """How many indices stay in each axis that has scores: by the budget, or else by the ratio."""
    return widths.counts(scores, axes) if budget is None else budget.counts(axes, scores, widths)


def _lost(scores: Tensor, counts: list[int], weights: int) -> list[float]:
    """How much an axis of n indices loses when the best `counts` of them stay.

    -weights n log(share of the summed scores that stays): what goes first loses its scores divided
    by the axis' mean, so that axes can be compared, in each of the weights that the axis is a
    dimension of; the fewer are left, the more each one counts. Without the logarithm some layers
    are all but emptied; without `weights`, a residual stream, which every block reads, goes first.
    Measured by `python benchmarks/allocation.py`.
    """
    best = scores.sort(descending=True).values.double().cumsum(0)
    whole = float(best[-1])
    if not whole > 0:
        return [0.0] * len(counts)
    shares = [max(float(best[count - 1]) / whole, 1e-300) for count in counts]
    return [-weights * len(scores) * math.log(min(share, 1.0)) for share in shares]


def _weights_of(group: Group, axes: Axes) -> int:
    """How many weights (parameters of two dimensions or more) the axis takes part in."""
    network = axes.trace.network
    scales = scale_names(network)
    dims = {name: tensor.dim() for name, tensor in network.named_parameters() if name not in scales}
    return max(1, sum(dims.get(site.tensor, 0) > 1 for site in group.sites))
