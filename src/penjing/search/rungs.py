"""Rungs: the ways to quantize that a fit tries, and the one that it goes on with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from penjing.contract import Latency
from penjing.network import Network
from penjing.passes import Quantize
from penjing.search.float_layers import slower_layers
from penjing.search.ledger import Ledger
from penjing.search.recipes import FEWER_BITS, QUANTIZATIONS, Recipe, demanded
from penjing.search.result import Candidate
from penjing.search.workshop import Workshop

INT8 = "int8"
"""The first rung, and what all with eight bits are called where something else was done first."""
NO_GAIN = "no gain"

Attempt = Callable[[str], Candidate]
"""Makes and measures the original quantized by the chosen rung, as the candidate of its name."""


@dataclass
class Rungs:
    """Recipes by name, and the name of the one with which the cuts are quantized too.

    Attributes:
        demands: of the runtime for which they are, see `Runtime.demands`.
    """

    demands: Mapping[str, Any] = field(default_factory=dict)
    recipes: dict[str, Recipe] = field(init=False)
    chosen: str = INT8

    def __post_init__(self) -> None:
        self.recipes = {
            name: demanded(recipe, self.demands) for name, recipe in QUANTIZATIONS.items()
        }

    @property
    def recipe(self) -> Recipe:
        return self.recipes[self.chosen]

    def after(self, cut: str) -> str:
        """The name of the candidate that is cut and then quantized by the chosen rung."""
        return f"{cut} + {self.chosen if self.chosen in FEWER_BITS else INT8}"

    def climb(self, attempt: Attempt) -> None:
        """Rung after rung until one keeps the budget; else the one that loses least goes on."""
        lost = {}
        for name in self.recipes:
            self.chosen = name
            found = attempt(name)
            if found.status == "kept":
                return
            if found.measurement.drop is not None:
                lost[name] = found.measurement.drop.drop
        self.chosen = min(lost, key=lost.__getitem__, default=INT8)

    def descend(self, attempt: Attempt, affordable: Callable[[], bool]) -> None:
        """From a rung that keeps the budget to fewer bits, until one doesn't or none is affordable:
        for small files."""
        for name, recipe in FEWER_BITS.items():
            if not affordable():
                return
            before, self.chosen = self.chosen, name
            self.recipes[name] = demanded(recipe, self.demands)
            if attempt(name).status != "kept":
                self.chosen = before
                return

    def leave_in_float(
        self, attempt: Attempt, workshop: Workshop, ledger: Ledger, original: Network
    ) -> None:
        """Try the layers in float that the rung slows down; that goes on if its file is faster."""
        before = ledger.result.find(self.chosen)
        if before.measurement.latency is None:
            return
        slow = slower_layers(workshop, before.name, original, before.measurement.latency)
        if slow is None:
            who = before.runtime if workshop.device is None else "the device"
            ledger.note(
                f"{who} tells no layer's time, so none was looked for that {before.name} slows down"
            )
        if not slow:
            return
        self.chosen = f"{before.name} with {len(slow)} in float"
        self.recipes[self.chosen] = in_float(self.recipes[before.name], slow)
        found = attempt(self.chosen)
        if found.status != "failed":
            times = workshop.time([found.name], baseline=before.name)[found.name]
            status = found.status if times.verdict == "faster" else NO_GAIN
            found = replace(found, status=status, reason=explained(before.name, slow, times))
            ledger.record(found)
        if found.status not in ("kept", before.status):
            self.chosen = before.name


def in_float(recipe: Recipe, layers: Sequence[str]) -> Recipe:
    """The recipe with these layers in float."""
    floats = dict.fromkeys(layers, 0)
    return tuple(
        replace(one, layers={**one.layers, **floats}) if isinstance(one, Quantize) else one
        for one in recipe
    )


def explained(before: str, layers: Sequence[str], times: Latency) -> str:
    """One line: which layers, and what a file with them in float takes, `before`'s time being 1."""
    some = ", ".join(layers[:3]) + (", ..." if len(layers) > 3 else "")
    return (
        f"{before} is slower than float in {some}; with them in float {times.ratio:.3f} of its "
        f"time ({times.ratio_low:.3f} - {times.ratio_high:.3f}): {times.verdict}"
    )
