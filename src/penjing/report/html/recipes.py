"""Recipes in a line: the passes of a candidate, each with what tells most about it."""

from __future__ import annotations

from collections.abc import Mapping

from penjing.contract import Json
from penjing.layout import counted
from penjing.passes import PASSES
from penjing.printable import in_a_line
from penjing.report.passes import described
from penjing.trials.trial import Trial

SEVERAL = {"names": "part", "widths": "width", "layers": "exception"}
"""What is in each option that lists or maps something."""
SINGLE = ("activations", "bits", "group", "ranges", "rank", "ratio", "weights")
"""What else is worth a word where it isn't the usual."""
ALWAYS = ("ratio",)
"""What is worth a word in any case, unless one of `INSTEAD` replaces it."""
INSTEAD = ("budget", "widths")


def in_short(trial: Trial) -> str:
    """The passes of a candidate, in order; empty for the original."""
    return in_a_line(" → ".join(step_in_short(step) for step in trial.candidate.recipe))


def step_in_short(step: Mapping[str, Json]) -> str:
    """One pass, with those of its options that tell most.

    >>> step_in_short({"method": "Drop", "names": ["layer1.1", "layer2.1"]})
    'Drop (2 parts)'
    >>> step_in_short({"method": "PruneChannels", "ratio": 0.5})
    'PruneChannels (ratio 0.5)'
    >>> step_in_short({"method": "PruneChannels", "ratio": 0.5, "widths": {"conv1": 8}})
    'PruneChannels (1 width)'
    >>> step_in_short({"method": "Tune", "options": {"epochs": 4.25, "lr": 0.1}})
    'Tune (4.25 epochs)'
    """
    name = str(step["method"])
    usual = described(PASSES[name]).defaults if name in PASSES else {}
    parts = []
    for option, value in step.items():
        always = option in ALWAYS and not any(map(step.get, INSTEAD))
        if option != "method" and (always or value != usual.get(option)):
            parts += _option(option, value)
    return f"{name} ({', '.join(parts)})" if parts else name


def _option(name: str, value: Json) -> list[str]:
    """An option in words; none for what would tell nothing."""
    if name == "options" and isinstance(value, Mapping):  # of a training
        return [f"{value['epochs']:.3g} epochs"] if "epochs" in value else []
    if isinstance(value, Mapping | list | tuple):
        return [counted(len(value), SEVERAL[name])] if value and name in SEVERAL else []
    return [f"{name} {in_a_line(str(value))}"] if name in SINGLE else []
