"""Goal: what to make as small as possible: one figure of a file, or several with weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from penjing.errors import InputError
from penjing.trials.judgement.comparison import is_disturbed
from penjing.trials.trial import Trial

FIGURES = ("latency", "size", "memory")
"""The time of one sample, the bytes of the file, and the bytes of the values that are alive at
once."""


@cache
def weights_of(goal: str) -> Mapping[str, float]:
    """The weight of each figure that a goal names; all together they are 1.

    >>> dict(weights_of("size")), dict(weights_of("latency=3,size=1"))
    ({'size': 1.0}, {'latency': 0.75, 'size': 0.25})

    Raises:
        InputError: it names an unknown figure or one twice, or a weight isn't above 0.
    """
    weights: dict[str, float] = {}
    for part in str(goal).replace(" ", "").split(","):
        name, _, number = part.partition("=")
        try:
            weight = float(number or 1)
        except ValueError:
            weight = math.nan
        if name not in FIGURES or name in weights or not 0 < weight < math.inf:
            raise InputError(
                "`goal` must be latency, size or memory, or several of them with weights above 0, "
                f"such as latency=2,size=1; found {goal!r}"
            )
        weights[name] = weight
    total = sum(weights.values())
    return MappingProxyType({name: weight / total for name, weight in weights.items()})


def canonical(goal: str) -> str:
    """The goal as results have it; a single figure needs no weight.

    >>> canonical("latency=3"), canonical("latency=2, size=2")
    ('latency', 'latency=2,size=2')
    """
    names = list(weights_of(goal))
    return names[0] if len(names) == 1 else goal.replace(" ", "")


def mean_of(goal: str, shares: Mapping[str, float]) -> float:
    """The weighted mean of the shares of the goal's figures."""
    return sum(weight * shares[figure] for figure, weight in weights_of(goal).items())


def share(goal: str, trial: Trial, original: Trial, at_most: bool = False) -> float | None:
    """What a file takes of the original's, the weighted mean over the goal's figures; None if one
    of them wasn't measured.

    Args:
        goal: see `weights_of`.
        trial: the file's.
        original: the original's.
        at_most: take the upper end of a time's interval.
    """
    shares = {name: _share(name, trial, original, at_most) for name in weights_of(goal)}
    known = {name: of for name, of in shares.items() if of is not None}
    return mean_of(goal, known) if len(known) == len(shares) else None


def is_sure(goal: str, trial: Trial) -> bool:
    """Whether nothing disturbed the figures of the goal; only a time can be disturbed."""
    if "latency" not in weights_of(goal):
        return True
    return trial.latency is not None and not is_disturbed(trial.latency)


def _share(figure: str, trial: Trial, original: Trial, at_most: bool) -> float | None:
    if figure == "latency":
        times = trial.latency
        return None if times is None else times.ratio_high if at_most else times.ratio
    field = "file_bytes" if figure == "size" else "peak_activation_bytes"
    mine, whole = (getattr(each.measurement, field) for each in (trial, original))
    return mine / whole if mine is not None and whole else None
