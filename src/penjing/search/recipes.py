"""Recipes: which passes, in which order; JSON in and out; the fixed list that a fit tries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from penjing.contract import Json
from penjing.errors import InputError
from penjing.passes import PASSES, Int8, Pass, PruneChannels, Tune
from penjing.targets import Target
from penjing.tune.options import TuneOptions

Recipe = tuple[Pass, ...]
WIDTHS = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Trial:
    """A named recipe; `base` is the trial whose network it starts from, if any."""

    name: str
    recipe: Recipe
    base: str | None = None


def to_json(recipe: Recipe) -> list[Json]:
    """The passes with their options."""
    return [one.to_json() for one in recipe]


def from_json(data: Sequence[Json]) -> Recipe:
    """Read what `to_json` wrote.

    Raises:
        InputError: an unknown pass or option.
    """
    found: list[Pass] = []
    for one in data:
        options: dict[str, Any] = dict(one)
        name = options.pop("method", None)
        if name not in PASSES:
            raise InputError(f"no pass {name!r}; there are {', '.join(PASSES)}")
        if name == "Tune" and "options" in options:
            options["options"] = TuneOptions(**options["options"])
        try:
            found.append(PASSES[name](**options))
        except TypeError as error:
            raise InputError(f"pass {name}: {error}") from error
    return tuple(found)


def trials(target: Target, seconds: float, seed: int) -> list[Trial]:
    """What a fit tries, cheapest first; `seconds` is the time for each training."""
    tune = Tune(TuneOptions(epochs=8, seconds=seconds, seed=seed))
    found = [Trial("int8", (Int8(),))]
    for ratio in WIDTHS:
        narrow = f"prune {ratio:.0%}".replace("%", " %")
        multiple = target.channel_multiple // 2
        prune = PruneChannels(ratio, importance="l1+l2", multiple=multiple, skip_mixed=True)
        found.append(Trial(narrow, (prune, tune)))
        found.append(Trial(f"{narrow} + int8", (Int8(),), base=narrow))
    return found
