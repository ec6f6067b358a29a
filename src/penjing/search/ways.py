"""Ways: the runtimes and number formats in which a network can become a file for the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penjing.passes import Pass
from penjing.runtimes.contract import Runtime
from penjing.runtimes.registry import find_runtime, installed
from penjing.targets import Target
from penjing.trials.candidate import Candidate
from penjing.trials.recipe import constrained


@dataclass(frozen=True)
class Way:
    """A runtime, and the format in which its files hold real numbers, see `Runtime.lower`."""

    runtime: Runtime
    floats: str = "float32"

    def __hash__(self) -> int:
        return hash((self.runtime.name, self.floats))

    def candidate(self, *passes: Pass) -> Candidate:
        """The candidate that these passes make in this way, with what the runtime needs of
        `Quantize`."""
        recipe = constrained(passes, self.runtime.constraints)
        return Candidate.of(recipe, self.runtime.name, self.floats)


@dataclass(frozen=True)
class Ways:
    """The usual way and all others.

    Attributes:
        usual: the target's first runtime that holds floats, and float32.
        others: the other runtimes that are installed here and that the target has, and float16 in
            each runtime that computes in it.
    """

    usual: Way
    others: Sequence[Way] = ()

    @classmethod
    def on(cls, target: Target, first: Runtime) -> Ways:
        """All ways that can be tried on the target."""
        names = [name for name in installed() if name in target.runtimes and name != first.name]
        runtimes = [first, *(find_runtime(name).on(target) for name in names)]
        usual = Way(first)
        ways = [Way(runtime, floats) for runtime in runtimes for floats in _forms(runtime, target)]
        return cls(usual, tuple(way for way in ways if way != usual))

    @property
    def every(self) -> Sequence[Way]:
        """All ways, the usual one first."""
        return (self.usual, *self.others)

    @property
    def plain(self) -> Sequence[Way]:
        """The ways for a network in float, without the usual one. An NPU may have none."""
        return tuple(way for way in self.others if way.runtime.floats)

    @property
    def integer(self) -> Sequence[Way]:
        """The ways for a quantized network, which is never made in half precision.

        Where a compiler estimates times, a file that it doesn't see can't be compared with its own.
        """
        ways = [way for way in self.every if way.floats == self.usual.floats]
        return [way for way in ways if way.runtime.clock_hz is not None] or ways

    def title(self, base: str, way: Way) -> str:
        """What `base` made in a way is called; with the runtime, if there are several."""
        precision = "" if way.floats == self.usual.floats else f" in {way.floats}"
        runtimes = {each.runtime.name for each in self.every}
        return f"{base}{precision}{f' in {way.runtime.name}' if len(runtimes) > 1 else ''}"


def _forms(runtime: Runtime, target: Target) -> tuple[str, ...]:
    """The formats of real numbers in which both compute."""
    halves = runtime.half_values and "float16" in target.precisions
    return ("float32", "float16") if halves else ("float32",)
