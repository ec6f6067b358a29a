"""Order: find the passes of a recipe that can't work where they stand, before any pass runs.

The usual order is: change the structure, solve by least squares, train, quantize, refine the
rounding. No list of allowed orders exists. What can't work follows from what each pass requires
and provides. Every other order is allowed, for example pruning or training a quantized network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penjing.errors import InputError
from penjing.passes.conditions import OF_NETWORK, Condition
from penjing.passes.contract import Pass

AT_THE_START = frozenset({Condition.FLOAT})
ENDS: dict[Condition, frozenset[Condition]] = {
    Condition.REDUCED: frozenset({Condition.TRAINED}),
    Condition.TRAINED: frozenset({Condition.REFINED, Condition.CORRECTED, Condition.LEARNED}),
    Condition.ROUNDED: frozenset({Condition.FLOAT}),
    Condition.ROUNDED_VALUES: frozenset({Condition.FLOAT}),
}
"""The conditions that end once a pass has provided the condition in the key."""
SPOILS: dict[tuple[Condition, Condition], str] = {
    (Condition.SHARED, Condition.SOLVED): (
        "would find no layer to solve, because equal weights stay equal; move it in front"
    ),
    (Condition.SHARED, Condition.REFINED): (
        "would find no weight to round, because equal weights stay equal; leave one of them out"
    ),
    (Condition.TRAINED, Condition.SOLVED): "would undo that training; move it in front",
    (Condition.CORRECTED, Condition.REFINED): (
        "corrects the mean error itself, so the correction would be applied twice; leave one of "
        "them out"
    ),
    (Condition.LEARNED, Condition.CORRECTED): (
        "would correct a mean error that the learned rounding already accounts for; leave one of "
        "them out"
    ),
    (Condition.REFINED, Condition.REFINED): (
        "has nothing left to round, because every weight is a whole number of steps already; "
        "leave one of them out"
    ),
}
"""(what an earlier pass provided, what this pass provides) to the reason why they don't go
together."""


def problems(recipe: Sequence[Pass]) -> list[str]:
    """The problems with the order of a recipe: at most one line for each pass, empty if none.

    The check uses what the passes require and provide. It needs no network.

    >>> from penjing.passes import Gptq, Quantize, Tune
    >>> problems((Quantize(), Gptq(), Tune()))
    []
    >>> problems((Gptq(), Quantize()))
    ['pass 1 (Gptq) has nothing to do: no weight is quantized; apply Quantize first']
    """
    lines = []
    holds: dict[Condition, str] = dict.fromkeys(AT_THE_START, "")  # and which pass provided it
    ended: dict[Condition, str] = {}
    for number, step in enumerate(recipe, start=1):
        name = f"pass {number} ({type(step).__name__})"
        if why := _idle(step, holds, ended) or _spoiling(step, holds):
            lines.append(f"{name} {why}")
        for condition in step.provides:
            for gone in ENDS.get(condition, frozenset()) & holds.keys():
                ended[gone] = name
                del holds[gone]
        holds |= dict.fromkeys(step.provides, name)
    return lines


def _idle(step: Pass, holds: Mapping[Condition, str], ended: Mapping[Condition, str]) -> str:
    """Why the pass will find nothing to do; empty if it will find something."""
    for condition, (_, words) in OF_NETWORK.items():
        if condition in step.requires and condition not in holds:
            after = f" after {ended[condition]}" if condition in ended else ""
            return f"has nothing to do{after}: {words}"
    return ""


def _spoiling(step: Pass, holds: Mapping[Condition, str]) -> str:
    """Why the pass undoes or repeats the work of an earlier one; empty if it doesn't."""
    for (before, after), why in SPOILS.items():
        if after in step.provides and before in holds:
            return f"comes after {holds[before]} and {why}"
    return ""


def require_legal(recipe: Sequence[Pass]) -> None:
    """Raise InputError with the first problem of a recipe whose order can't work."""
    lines = problems(recipe)
    if lines:
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        raise InputError(f"the recipe's order can't work: {lines[0]}{more}")
