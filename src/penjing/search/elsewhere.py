"""Elsewhere: the same network in the target's other runtimes, and the one that goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from penjing.passes import Quantize
from penjing.runtimes.contract import Runtime
from penjing.runtimes.registry import find_runtime, installed
from penjing.search.recipes import Recipe
from penjing.search.result import Candidate
from penjing.targets import Target

Attempt = Callable[[str], Candidate]
"""Makes and measures the candidate of that name, which is in `Elsewhere.made`."""


@dataclass
class Elsewhere:
    """Runtimes beside the first one, in which candidates are made once more.

    Attributes:
        runtimes: those that are installed and that the target has.
        made: by the name of such a candidate, the one that it is made from, and its runtime.
        chosen: the runtime in which the quantized original was fastest, if not in the first one.
    """

    runtimes: Sequence[Runtime]
    made: dict[str, tuple[str, Runtime]] = field(default_factory=dict)
    chosen: Runtime | None = None

    @classmethod
    def on(cls, target: Target, first: Runtime) -> Elsewhere:
        """All that can be tried on the target."""
        names = [one for one in installed() if one in target.runtimes and one != first.name]
        return cls([find_runtime(one) for one in names])

    def base(self, name: str) -> str:
        """What the candidate is made from, by name; itself if it is of the first runtime."""
        return self.made[name][0] if name in self.made else name

    def runtime(self, name: str) -> Runtime | None:
        """The candidate's runtime; None for the first one."""
        return self.made[name][1] if name in self.made else None

    def demanded(self, name: str, recipe: Recipe) -> Recipe:
        """The recipe with the integers that the candidate's runtime demands."""
        runtime = self.runtime(name)
        demands = runtime.demands if runtime is not None else {}
        return tuple(
            replace(one, **demands) if isinstance(one, Quantize) else one for one in recipe
        )

    def try_all(self, names: Sequence[str], attempt: Attempt) -> list[Candidate]:
        """Make each of the candidates in each of the runtimes."""
        return [self._try(name, one, attempt) for one in self.runtimes for name in names]

    def try_chosen(self, names: Sequence[str], attempt: Attempt) -> None:
        """Make each of the candidates in the runtime that goes on, if there is one."""
        if self.chosen is not None:
            for name in names:
                self._try(name, self.chosen, attempt)

    def choose(self, name: str, ratio: float, found: Sequence[Candidate]) -> None:
        """Go on with the runtime in which `name` is fastest, if one beats `ratio`, its latency in
        the first runtime."""
        best = ratio
        for one in found:
            times = one.measurement.latency
            mine = one.status == "kept" and self.base(one.name) == name
            if mine and times is not None and times.ratio_high < best:
                best, self.chosen = times.ratio_high, self.runtime(one.name)

    def _try(self, name: str, runtime: Runtime, attempt: Attempt) -> Candidate:
        found = f"{name} in {runtime.name}"
        self.made[found] = (name, runtime)
        return attempt(found)
