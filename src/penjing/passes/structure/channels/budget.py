"""Budget: how much of a cost may remain, and the widths that keep within it."""

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
from penjing.passes.structure.channels.allocation import Allocation
from penjing.passes.structure.channels.widths import Widths

What = Literal["macs", "params", "latency"]
WHATS: tuple[str, ...] = get_args(What)
LEAST_SHARE = 0.1
"""The share of an axis that stays, unless the budget can't be reached otherwise."""


@dataclass(frozen=True)
class Budget:
    """The share of the network's present cost that may remain.

    Attributes:
        what: the cost: `"macs"` for one sample, `"params"`, or the `"latency"` that `table`
            predicts.
        share: the share of it that may remain, in (0, 1].
        table: the measured times of the layers, which `"latency"` needs. For widths and blocks
            `penjing.tools.latency_table.latency_table` makes it, and for ranks
            `penjing.tools.alternatives.alternatives_table`.

    Raises:
        InputError: an option is out of range, or `"latency"` comes without a table.

    >>> Budget("macs", 0.5)
    Budget(what='macs', share=0.5, table=None)
    """

    what: What
    share: float
    table: LatencyTable | None = None

    def __post_init__(self) -> None:
        if self.what not in WHATS:
            raise InputError(f"a budget must limit one of {', '.join(WHATS)}; found {self.what!r}")
        if not 0 < self.share <= 1:
            raise InputError(
                f"share must be in (0, 1], as what may remain of the cost; found {self.share}"
            )
        object.__setattr__(self, "table", LatencyTable.read(self.table))
        if (self.what == "latency") != (self.table is not None):
            raise InputError(
                "a budget of latency needs a table of the layers' times, and other budgets take "
                "none; penjing.tools.latency_table.latency_table makes one, and for ranks "
                "penjing.tools.alternatives.alternatives_table"
            )

    @classmethod
    def read(cls, value: Any, widths: Widths) -> Budget | None:
        """Read a budget from a `Budget`, from a mapping of its fields, or from None.

        Raises:
            InputError: `value` is no budget, or `widths` also say how much to remove.
        """
        if value is None:
            return None
        for name in ("ratio", "ranking"):
            if getattr(widths, name) != getattr(Widths, name):
                raise InputError(
                    f"{name}={getattr(widths, name)!r} and budget both say how much to remove; "
                    "give only one of them"
                )
        return cls.of(value)

    @classmethod
    def of(cls, value: Any) -> Budget | None:
        """Read a budget from a `Budget`, from a mapping of its fields, or from None.

        Raises:
            InputError: `value` is no budget.
        """
        if value is None:
            return None
        if isinstance(value, cls):
            return value
        try:
            return cls(**value)
        except TypeError as error:
            raise InputError(
                "budget must be a Budget or a mapping such as {'what': 'macs', 'share': 0.5}; "
                f"found {value!r}"
            ) from error

    def cost_model(self, axes: Axes) -> CostModel:
        """The cost of the network as a function of its widths."""
        if self.table is not None:
            return self.table.cost_model(axes)
        return cost_in_macs(axes) if self.what == "macs" else cost_in_params(axes)

    def counts(self, axes: Axes, scores: Mapping[str, Tensor], widths: Widths) -> dict[str, int]:
        """The number of indices that stay in each axis, chosen to lose the least importance.

        Args:
            axes: all axes of the network.
            scores: by axis that may shrink, one score for each index; the largest stay.
            widths: gives `keep` and `multiple`. At least a tenth of each axis stays, unless the
                budget can't be reached otherwise.

        Raises:
            InputError: the budget can't be reached; the message says how close it gets.
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
            f"a budget of {self.share:.1%} of the {self.what} can't be reached: "
            f"{allocation.cost / whole:.1%} remain with all {len(scores)} axes that may shrink at "
            "their minimum; skip fewer axes, or choose a smaller keep or multiple"
        )


def counts_that_stay(
    budget: Budget | None, widths: Widths, axes: Axes, scores: Mapping[str, Tensor]
) -> dict[str, int]:
    """The number of indices that stay in each axis with scores, by the budget or by the ratio."""
    return widths.counts(scores, axes) if budget is None else budget.counts(axes, scores, widths)


def _lost(scores: Tensor, counts: list[int], weights: int) -> list[float]:
    """The importance that an axis of n indices loses if only its best `counts` indices stay.

    The loss is -weights n log(s), where s is the share of the summed scores that stays. The first
    indices to go lose about their scores divided by the axis' mean, so axes can be compared. The
    fewer indices are left, the more each one counts. Without the logarithm, some layers lose nearly
    all their channels. Without `weights`, a residual stream, which every block reads, shrinks
    first. `python benchmarks/allocation.py` measures both effects.
    """
    best = scores.sort(descending=True).values.double().cumsum(0)
    whole = float(best[-1])
    if not whole > 0:
        return [0.0] * len(counts)
    shares = [max(float(best[count - 1]) / whole, 1e-300) for count in counts]
    return [-weights * len(scores) * math.log(min(share, 1.0)) for share in shares]


def _weights_of(group: Group, axes: Axes) -> int:
    """The number of weights (parameters of two dimensions or more) that have the axis."""
    network = axes.trace.network
    scales = scale_names(network)
    dims = {name: tensor.dim() for name, tensor in network.named_parameters() if name not in scales}
    return max(1, sum(dims.get(site.tensor, 0) > 1 for site in group.sites))
