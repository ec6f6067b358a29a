"""Elsewhere: the same network in the target's other runtimes and in half precision, and the way
that goes on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from penjing.runtimes.contract import Runtime
from penjing.runtimes.registry import find_runtime, installed
from penjing.search.recipes import Recipe, demanded
from penjing.search.result import Candidate
from penjing.targets import Target


@dataclass(frozen=True)
class Way:
    """A runtime, and how its files hold real numbers, see `Runtime.lower`."""

    runtime: Runtime
    floats: str = "float32"


@dataclass
class Elsewhere:
    """The ways beside the usual one in which candidates are made once more.

    Attributes:
        usual: the target's first runtime, and float32.
        ways: the others: runtimes that are installed and that the target has, and float16 in each
            that computes in it.
        made: by the name of such a candidate, the one that it is made from, and how.
        chosen: the way in which the uncut network was fastest, if that isn't the usual one.
    """

    usual: Way
    ways: Sequence[Way]
    made: dict[str, tuple[str, Way]] = field(default_factory=dict)
    chosen: Way | None = None

    @classmethod
    def on(cls, target: Target, first: Runtime) -> Elsewhere:
        """All that can be tried on the target."""
        names = [one for one in installed() if one in target.runtimes and one != first.name]
        runtimes = [first, *(find_runtime(one) for one in names)]
        usual = Way(first)
        ways = [Way(one, floats) for one in runtimes for floats in _computed(one, target)]
        return cls(usual, [one for one in ways if one != usual])

    def base(self, name: str) -> str:
        """What the candidate is made from, by name; itself if it is made in the usual way."""
        return self.made[name][0] if name in self.made else name

    def way(self, name: str) -> Way:
        """How the candidate is made."""
        return self.made[name][1] if name in self.made else self.usual

    def demanded(self, name: str, recipe: Recipe) -> Recipe:
        """The recipe with the integers that the candidate's runtime demands."""
        return demanded(recipe, self.way(name).runtime.demands)

    def add_everywhere(self, names: Sequence[str], rounded: Collection[str]) -> list[str]:
        """Add those candidates made in every way; their names.

        Args:
            rounded: those of integers, which are not made in half precision.
        """
        return [made for way in self.ways for made in self._add(names, rounded, way)]

    def add_in_chosen(self, names: Sequence[str], rounded: Collection[str]) -> list[str]:
        """Add those candidates made in the way that goes on, if there is one; their names."""
        return self._add(names, rounded, self.chosen) if self.chosen else []

    def choose(self, ratio: float, found: Sequence[Candidate]) -> None:
        """Go on with the way of the fastest of those found, if it beats `ratio`, the latency of the
        usual way's best."""
        for one in found:
            times = one.measurement.latency
            if one.status == "kept" and times is not None and times.ratio_high < ratio:
                ratio, self.chosen = times.ratio_high, self.way(one.name)

    def _add(self, names: Sequence[str], rounded: Collection[str], way: Way) -> list[str]:
        found = {}
        for name in names:
            if way.floats == self.usual.floats:
                found[f"{name} in {way.runtime.name}"] = name, way
            elif name not in rounded:
                there = "" if way.runtime is self.usual.runtime else f" in {way.runtime.name}"
                found[f"{name} in {way.floats}{there}"] = name, way
        self.made |= found
        return list(found)


def _computed(runtime: Runtime, target: Target) -> tuple[str, ...]:
    """The forms of real numbers that both compute in."""
    halves = runtime.half_values and "float16" in target.precisions
    return ("float32", "float16") if halves else ("float32",)
