"""Float layers: the layers that a quantized file runs more slowly than the original does."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from penjing.contract import Artifact, Latency
from penjing.network import Network
from penjing.network.graph.layers import layers_of
from penjing.runtimes.contract import Runtime
from penjing.trials.evaluation.instruments import Instruments, runs_in

REPEATS = 5
MARGIN = 1.1  # times the float layer's, at least
WORTH = 0.02  # of the quantized file's time, at least
SECONDS_A_REPEAT = 0.1
RUNS = (8, 60)

Seconds = Mapping[str, Sequence[float]]
"""By layer, the time in each repeat."""


def slower_layers(
    files: Sequence[tuple[Runtime, Artifact]],
    network: Network,
    latency: Latency,
    inputs: Any,
    instruments: Instruments,
) -> list[str] | None:
    """The network's layers that the first of two files runs more slowly than the second does.

    Both files are profiled in turn, several times. A layer is compared with everything that the
    runtime fuses into it, so the figures are hints only: whether a file with these layers in float
    is faster has to be measured.

    Args:
        files: a candidate's, and the original's as the candidate's runtime has it.
        latency: the candidate's; decides how many runs a profile takes.

    Returns:
        Their names; None if the runtime can't time layers.
    """
    runs = runs_in(SECONDS_A_REPEAT, latency, RUNS)
    profiles = _profiles(files, inputs, runs, instruments)
    if profiles is None:
        return None
    mine, theirs = profiles
    layers = [str(node.meta["layer"]) for node in layers_of(network)]
    return clearly_slower(mine, theirs, layers)


def clearly_slower(mine: Seconds, theirs: Seconds, layers: Sequence[str]) -> list[str]:
    """The layers that were slower in every repeat and by a margin; none if all of them together
    could save too little to matter.

    >>> clearly_slower({"a": [3, 3], "b": [4, 9]}, {"a": [1, 2], "b": [5, 5]}, ["a", "b"])
    ['a']
    """
    slower, saved = [], 0.0
    for layer in dict.fromkeys(layers):
        if layer not in mine or layer not in theirs:
            continue
        ours, float_ones = statistics.median(mine[layer]), statistics.median(theirs[layer])
        if ours > MARGIN * float_ones and min(mine[layer]) > max(theirs[layer]):
            slower.append(layer)
            saved += ours - float_ones
    whole = sum(statistics.median(seconds) for seconds in mine.values())
    return slower if saved >= WORTH * whole else []


def _profiles(
    files: Sequence[tuple[Runtime, Artifact]], inputs: Any, runs: int, instruments: Instruments
) -> list[dict[str, list[float]]] | None:
    """The layers of each file, profiled in turn; None if a file can't be profiled."""
    profiles: list[dict[str, list[float]]] = [{} for _ in files]
    for _ in range(REPEATS):
        for (runtime, artifact), profile in zip(files, profiles, strict=True):
            times = instruments.profile(runtime, artifact, inputs, runs)
            if times is None:
                return None
            for layer, seconds in times.items():
                profile.setdefault(layer, []).append(seconds)
    return profiles
