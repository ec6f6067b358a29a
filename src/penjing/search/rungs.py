"""Rungs: the ways to quantize that a fit tries in each runtime, and the one that goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from penjing.contract import Latency
from penjing.network import Network
from penjing.passes import Quantize
from penjing.search.elsewhere import Elsewhere, Way
from penjing.search.float_layers import slower_layers
from penjing.search.ledger import Ledger
from penjing.search.recipes import FEWER_BITS, QUANTIZATIONS, Recipe
from penjing.search.result import Candidate, betters, choose, eligible
from penjing.search.workshop import BASELINE, Workshop

INT8 = "int8"
"""The first rung, and what all with eight bits are called where something else was done first."""

Attempt = Callable[[str, Way], Candidate]
"""Makes and measures the original quantized by a rung, in a way."""
Affordable = Callable[[Candidate], bool]
"""Whether there is time for another like this one."""


@dataclass
class Rungs:
    """Recipes by name, how far each way has climbed, and what the cuts go on with.

    Attributes:
        chosen, way: the rung with which the cuts are quantized too, and the way in which.
        last: of each way, the name of the newest candidate that was measured.
    """

    elsewhere: Elsewhere
    ledger: Ledger
    recipes: dict[str, Recipe] = field(default_factory=lambda: dict(QUANTIZATIONS))
    chosen: str = INT8
    way: Way = field(init=False)
    last: dict[Way, str] = field(default_factory=dict)
    tried: dict[str, tuple[str, Way]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.way = self.elsewhere.usual

    @property
    def recipe(self) -> Recipe:
        """The chosen rung's passes, as the way demands them."""
        return self.way.demanded(self.recipes[self.chosen])

    @property
    def name(self) -> str:
        """Of the candidate that goes on."""
        return self.elsewhere.named(self.chosen, self.way)

    def after(self, cut: str) -> str:
        """The name of the candidate that is cut and then quantized by the chosen rung."""
        return f"{cut} + {self.chosen if self.chosen in FEWER_BITS else INT8}"

    def try_everywhere(self, attempt: Attempt) -> None:
        """The first rung in every way: what loses too much in one runtime may not in another."""
        for way in self.elsewhere.integer:
            self._try(INT8, way, attempt)
        self.choose()

    def climb(self, attempt: Attempt, affordable: Affordable) -> None:
        """Rung after rung, in those ways whose file would win if only it kept the budget."""
        for rung in [one for one in self.recipes if one != INT8]:
            for way in sorted(self.last, key=self._lost):
                if not self._is_open(way):
                    continue
                if affordable(self._newest(way)):
                    self._try(rung, way, attempt)
                else:
                    name = self.elsewhere.named(rung, way)
                    self.ledger.note(f"too little time to try {name}")
        self.choose()

    def descend(self, attempt: Attempt, affordable: Affordable) -> None:
        """From a rung that keeps the budget to fewer bits, until one doesn't or none is affordable:
        for small files."""
        for name, recipe in FEWER_BITS.items():
            if not affordable(self._newest(self.way)):
                self.ledger.note(f"too little time to look for fewer bits than {self.name}'s")
                return
            self.recipes[name] = recipe
            if attempt(name, self.way).status != "kept":
                return
            self.chosen = name

    def leave_in_float(self, attempt: Attempt, workshop: Workshop, original: Network) -> None:
        """Try the layers in float that the chosen rung slows down.

        That goes on if it keeps the budget where the rung doesn't, or if both do and its file is
        faster. Whether it may be the answer is no affair of the rung's.
        """
        before = self.ledger.result.find(self.name)
        rival = self.elsewhere.named(BASELINE, self.way)
        if before.measurement.latency is None or rival not in workshop.artifacts:
            return
        slow = slower_layers(workshop, before.name, original, before.measurement.latency, rival)
        if slow is None:
            who = before.runtime if workshop.device is None else "the device"
            self.ledger.note(
                f"{who} tells no layer's time, so none was looked for that {before.name} slows down"
            )
        if not slow:
            return
        rung = f"{self.chosen} with {len(slow)} in float"
        self.recipes[rung] = in_float(self.recipes[self.chosen], slow)
        found = attempt(rung, self.way)
        if found.measurement.latency is None:
            return
        times = workshop.time([found.name], baseline=before.name)[found.name]
        why = explained(before.name, slow, times)
        self.ledger.record(replace(found, reason="; ".join(filter(None, (found.reason, why)))))
        if _goes_on(found, before, times):
            self.chosen = rung

    def _try(self, rung: str, way: Way, attempt: Attempt) -> None:
        found = attempt(rung, way)
        if found.measurement.drop is not None:
            self.last[way] = found.name
            self.tried[found.name] = rung, way

    def _newest(self, way: Way) -> Candidate:
        return self.ledger.result.find(self.last[way])

    def _lost(self, way: Way) -> float:
        drop = self._newest(way).measurement.drop
        assert drop is not None
        return drop.drop

    def _is_open(self, way: Way) -> bool:
        """Whether another rung in that way could win: its last one broke the budget, and what keeps
        it elsewhere is slower, or no gain, or isn't there. Speed doesn't hang on the rung."""
        result, mine = self.ledger.result, self._newest(way)
        if mine.status != "over budget":
            return False
        some = [result.find(name) for name in self.tried]
        if not any(one.status == "kept" for one in some):
            return True
        if not any(eligible(one, result.baseline, result.goal) for one in some):
            return betters(mine, result.baseline, result.goal)
        best, _ = choose(result.baseline, some, result.goal, result.max_drop)
        return result.goal == "latency" and result.is_faster(mine.name, best.name)

    def choose(self) -> None:
        """Go on with the best that may be the answer; else with what keeps the budget; only if
        nothing does, with what loses least."""
        result = self.ledger.result
        some = [result.find(name) for name in self.tried]
        if some:
            self.chosen, self.way = self.tried[_best(some, result.baseline, result.goal).name]


def _best(some: Sequence[Candidate], baseline: Candidate, goal: str) -> Candidate:
    best, _ = choose(baseline, some, goal, 0.0)
    if best is not baseline:
        return best
    kept = [one for one in some if one.status == "kept"]
    return min(kept or some, key=lambda one: _rank(one, bool(kept)))


def _rank(one: Candidate, by_time: bool) -> tuple[bool, float]:
    times, drop = one.measurement.latency, one.measurement.drop
    assert drop is not None
    if by_time and times is not None:
        return times.disturbed, times.ratio
    return by_time, drop.drop


def _goes_on(found: Candidate, before: Candidate, times: Latency) -> bool:
    if found.status != before.status:
        return found.status == "kept"
    if found.status == "kept":
        return times.verdict == "faster" and not times.disturbed
    mine, theirs = found.measurement.drop, before.measurement.drop
    return mine is not None and theirs is not None and mine.drop < theirs.drop


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
    verdict = "disturbed" if times.disturbed else times.verdict
    return (
        f"{before} is slower than float in {some}; with them in float {times.ratio:.3f} of its "
        f"time ({times.ratio_low:.3f} - {times.ratio_high:.3f}): {verdict}"
    )
