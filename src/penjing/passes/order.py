"""Order: which passes of a recipe can't stand where they do, told before any of them begins.

The usual order is structure, least squares, training, rounding, rounding refined. It isn't written
down anywhere as such: it follows from what each pass requires and provides. Every other order is
allowed, such as training or cutting what is rounded already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penjing.errors import InputError
from penjing.passes.conditions import OF_NETWORK, Condition
from penjing.passes.contract import Pass

AT_THE_START = frozenset({Condition.FLOAT})
ENDS: dict[Condition, frozenset[Condition]] = {
    Condition.REMOVED: frozenset({Condition.TRAINED}),
    Condition.TRAINED: frozenset({Condition.REFINED, Condition.CORRECTED, Condition.LEARNED}),
    Condition.ROUNDED: frozenset({Condition.FLOAT}),
    Condition.ROUNDED_VALUES: frozenset({Condition.FLOAT}),
}
"""What no longer matters, or no longer holds, once a pass has provided this."""
SPOILS: dict[tuple[Condition, Condition], str] = {
    (Condition.TRAINED, Condition.SOLVED): "would undo that training; put it before",
    (Condition.CORRECTED, Condition.REFINED): (
        "sees to the mean error itself, which would be taken back twice; leave one of them out"
    ),
    (Condition.LEARNED, Condition.CORRECTED): (
        "would take back a mean error that learned rounding has seen to; leave one of them out"
    ),
    (Condition.REFINED, Condition.REFINED): (
        "finds nothing left to round, for the weights are on their grids; leave one of them out"
    ),
}
"""By what a pass before has provided and what this one provides: why that goes wrong."""


def problems(recipe: Sequence[Pass]) -> list[str]:
    """What is wrong with the order of a recipe, at most one line for each pass; empty if nothing.

    It goes by what the passes require and provide, and looks at no network.

    >>> from penjing.passes import Gptq, Quantize, Tune
    >>> problems((Quantize(), Gptq(), Tune()))
    []
    >>> problems((Gptq(), Quantize()))
    ['pass 1 (Gptq) has nothing to do: no weight is rounded; Quantize first']
    """
    lines = []
    holds: dict[Condition, str] = dict.fromkeys(AT_THE_START, "")  # and the pass that saw to it
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
    """Why the network that the pass gets leaves it nothing to do; empty if there is something."""
    for condition, (_, words) in OF_NETWORK.items():
        if condition in step.requires and condition not in holds:
            behind = f" behind {ended[condition]}" if condition in ended else ""
            return f"has nothing to do{behind}: {words}"
    return ""


def _spoiling(step: Pass, holds: Mapping[Condition, str]) -> str:
    """Why the pass undoes what one before it did, or does it twice; empty if it doesn't."""
    for (before, after), why in SPOILS.items():
        if after in step.provides and before in holds:
            return f"stands behind {holds[before]} and {why}"
    return ""


def require_legal(recipe: Sequence[Pass]) -> None:
    """Raise InputError, with the first of its problems, for a recipe whose order can't work."""
    lines = problems(recipe)
    if lines:
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        raise InputError(f"the recipe's order can't work: {lines[0]}{more}")
