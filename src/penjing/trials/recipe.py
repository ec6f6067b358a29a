"""Recipe: which passes, in which order; JSON in and out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from penjing.contract import Json, Plan
from penjing.errors import InputError
from penjing.passes import PASSES, Pass, Quantize
from penjing.tune.options import TuneOptions

Recipe = tuple[Pass, ...]
CONSTRAINED = ("outputs", "elementwise", "split_silu", "symmetric", "overflow_fix")
"""Options of `Quantize` that a runtime may need (`Runtime.constraints`)."""


def to_json(recipe: Sequence[Pass]) -> list[Json]:
    """The passes with their options."""
    return [step.to_json() for step in recipe]


def from_json(data: Sequence[Json]) -> Recipe:
    """Read what `to_json` wrote.

    Raises:
        InputError: an unknown pass or option.
    """
    return tuple(_pass_of(step) for step in data)


def _pass_of(step: Mapping[str, Json]) -> Pass:
    options: dict[str, Any] = dict(step)
    name = options.pop("method", None)
    if not isinstance(name, str) or name not in PASSES:
        raise InputError(f"no pass {name!r}; there are {', '.join(PASSES)}")
    try:
        if name == "Tune" and "options" in options:
            training = dict(options["options"])
            training.pop("seconds", None)  # which an earlier penjing's recipes hold
            options["options"] = TuneOptions(**training)
        return PASSES[name](**options)
    except (TypeError, ValueError, AttributeError) as error:  # an option of another type
        raise InputError(f"pass {name}: {error}") from error


def from_plans(plans: Sequence[Plan]) -> Recipe:
    """The passes that made these plans."""
    return from_json([{"method": plan.method, **plan.options} for plan in plans])


def constrained(recipe: Sequence[Pass], constraints: Mapping[str, Any]) -> Recipe:
    """The recipe with the integers that a runtime needs (`Runtime.constraints`)."""
    return tuple(
        replace(step, **constraints) if isinstance(step, Quantize) else step for step in recipe
    )


def unconstrained(recipe: Sequence[Json]) -> list[Json]:
    """A recipe as JSON without what only its runtime needs."""
    return [{key: step[key] for key in step if key not in CONSTRAINED} for step in recipe]
