"""Recipes: which passes, in which order; JSON in and out; the fixed list that a fit tries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from penjing.contract import Json, Plan
from penjing.errors import InputError
from penjing.passes import PASSES, Equalize, Gptq, Pass, PruneChannels, Quantize, Tune
from penjing.targets import Target
from penjing.tune.options import TuneOptions

Recipe = tuple[Pass, ...]
CUTS = (0.25, 0.5, 0.75)
"""Shares of the channels to remove, the mildest first."""
MOST_EPOCHS = 20.0
QUANTIZATIONS: dict[str, Recipe] = {
    "int8": (Quantize(),),
    "int8 by percentile": (Quantize(ranges="percentile"),),
    "int8 equalized": (Equalize(), Quantize()),
}
"""Ways to quantize without training, tried in order until one keeps the budget. Each one's last
pass is a `Quantize`, or refines one."""
FEWER_BITS: dict[str, Recipe] = {
    f"int{bits} weights": (Quantize(weights=bits), Gptq()) for bits in (4, 3)
}
"""What is tried for a small file once eight bits keep the budget; values keep eight, so that
runtimes compute with integers as before, and just as fast."""


DEMANDS = ("outputs", "elementwise", "split_silu", "symmetric", "overflow_fix")
"""Options of `Quantize` that a runtime may demand (`Runtime.demands`)."""


def to_json(recipe: Recipe) -> list[Json]:
    """The passes with their options."""
    return [one.to_json() for one in recipe]


def demanded(recipe: Recipe, demands: Mapping[str, Any]) -> Recipe:
    """The recipe with the integers that a runtime demands (`Runtime.demands`)."""
    return tuple(replace(one, **demands) if isinstance(one, Quantize) else one for one in recipe)


def undemanded(recipe: Sequence[Json]) -> list[Json]:
    """A recipe as JSON without what only its runtime demands."""
    return [{key: one[key] for key in one if key not in DEMANDS} for one in recipe]


def from_json(data: Sequence[Json]) -> Recipe:
    """Read what `to_json` wrote.

    Raises:
        InputError: an unknown pass or option.
    """
    found: list[Pass] = []
    for one in data:
        options: dict[str, Any] = dict(one)
        name = options.pop("method", None)
        if not isinstance(name, str) or name not in PASSES:
            raise InputError(f"no pass {name!r}; there are {', '.join(PASSES)}")
        try:
            if name == "Tune" and "options" in options:
                told = dict(options["options"])
                told.pop("seconds", None)  # which an earlier penjing's recipes hold
                options["options"] = TuneOptions(**told)
            found.append(PASSES[name](**options))
        except (TypeError, ValueError, AttributeError) as error:  # an option of another type
            raise InputError(f"pass {name}: {error}") from error
    return tuple(found)


def from_plans(plans: Sequence[Plan]) -> Recipe:
    """The passes that made these plans."""
    return from_json([{"method": one.method, **one.options} for one in plans])


def cuts(target: Target) -> dict[str, PruneChannels]:
    """Pruning at each of the fixed shares, by the name of its candidate.

    Widths are kept at multiples of half the target's own: a whole vector of channels would leave
    the narrow layers of small networks as they are.
    """
    multiple = max(1, target.channel_multiple // 2)
    return {
        f"prune {100 * share:.0f} %": PruneChannels(
            share, importance="l1+l2", multiple=multiple, skip_mixed=True
        )
        for share in CUTS
    }


def tuning(epochs: float, distill: bool, seed: int) -> Tune:
    """The training after a cut whose layers, batch norms among them, have been solved anew."""
    options = TuneOptions(epochs=epochs, distill=0.9 if distill else 0.0, seed=seed)
    return Tune(options, recalibration_samples=0)
