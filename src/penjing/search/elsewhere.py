"""Elsewhere: the ways in which one and the same network can be made into a file of the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penjing.runtimes.contract import Runtime
from penjing.runtimes.registry import find_runtime, installed
from penjing.search.recipes import Recipe, demanded
from penjing.targets import Target


@dataclass(frozen=True)
class Way:
    """A runtime, and how its files hold real numbers, see `Runtime.lower`."""

    runtime: Runtime
    floats: str = "float32"

    def demanded(self, recipe: Recipe) -> Recipe:
        """The recipe with the integers that the runtime demands."""
        return demanded(recipe, self.runtime.demands)


@dataclass
class Elsewhere:
    """The usual way and all others.

    Attributes:
        usual: the target's first runtime, and float32.
        others: runtimes that are installed and that the target has, and float16 in each that
            computes in it.
    """

    usual: Way
    others: Sequence[Way]

    @classmethod
    def on(cls, target: Target, first: Runtime) -> Elsewhere:
        """All that can be tried on the target."""
        names = [one for one in installed() if one in target.runtimes and one != first.name]
        runtimes = [first, *(find_runtime(one) for one in names)]
        usual = Way(first)
        ways = [Way(one, floats) for one in runtimes for floats in _computed(one, target)]
        return cls(usual, [one for one in ways if one != usual])

    @property
    def integer(self) -> list[Way]:
        """The ways for a network of integers, which isn't made in half precision."""
        same = [one for one in self.others if one.floats == self.usual.floats]
        return [self.usual, *same]

    def named(self, base: str, way: Way) -> str:
        """The name of the candidate `base` made in a way."""
        there = "" if way.runtime is self.usual.runtime else f" in {way.runtime.name}"
        precision = "" if way.floats == self.usual.floats else f" in {way.floats}"
        return f"{base}{precision}{there}"


def _computed(runtime: Runtime, target: Target) -> tuple[str, ...]:
    """The forms of real numbers that both compute in."""
    halves = runtime.half_values and "float16" in target.precisions
    return ("float32", "float16") if halves else ("float32",)
