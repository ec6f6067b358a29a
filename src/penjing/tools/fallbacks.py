"""Fallbacks: operators that run on a lesser unit than the runtime is there for, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from penjing.contract import Placement
from penjing.layout import counted, folded

UNITS = {"cpu": "the CPU", "gpu": "the GPU", "npu": "the NPU"}


def fallbacks(placed: Sequence[Placement]) -> list[str]:
    """A line for each reason why operators fell back, with their kinds, counts and layers.

    >>> left = [Placement(f"head.{n}", "SOFTMAX", "cpu", "XNNPACK didn't take it") for n in (1, 2)]
    >>> fallbacks([Placement("conv", "CONV_2D", "xnnpack"), *left])
    ["2 operators fell back to the CPU: 2 SOFTMAX in head.1, head.2 (XNNPACK didn't take it)"]
    """
    fallen: dict[tuple[str, str], list[Placement]] = {}
    for place in placed:
        if place.why:
            fallen.setdefault((place.unit, place.why), []).append(place)
    return [
        f"{counted(len(places), 'operator')} fell back to {UNITS.get(unit, unit)}: "
        f"{_kinds(places)} ({why})"
        for (unit, why), places in fallen.items()
    ]


def _kinds(places: Sequence[Placement]) -> str:
    """How many of each kind, the most frequent first, and in which layers."""
    kinds = Counter(place.operator for place in places).most_common()
    named = {
        kind: list(dict.fromkeys(place.name for place in places if place.operator == kind))
        for kind, _ in kinds
    }
    return "; ".join(
        f"{number} {kind}" + (f" in {folded(names)}" if any(names := named[kind]) else "")
        for kind, number in kinds
    )
