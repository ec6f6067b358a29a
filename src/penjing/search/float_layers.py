"""Float layers: what a quantized file runs slower than the original does, from measurement."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from penjing.contract import Latency
from penjing.network import Network
from penjing.network.layers import LAYERS
from penjing.search.workshop import BASELINE, Workshop

REPEATS = 5
MARGIN = 1.1  # times the float layer's, at least
WORTH = 0.02  # of the quantized file's time, at least
SECONDS_A_REPEAT = 0.1
RUNS = (8, 60)

Seconds = Mapping[str, Sequence[float]]
"""Of each layer, what it took in each repeat."""


def slower_layers(
    workshop: Workshop, name: str, network: Network, latency: Latency, rival: str = BASELINE
) -> list[str] | None:
    """The network's layers that the candidate `name` runs slower than the original's file does.

    Both files are profiled in turn, several times. Layers that a runtime fuses are compared with
    all that is fused into them, which can't be helped: whether a file without them is faster has
    to be measured.

    Args:
        latency: of the candidate; tells how often a profile may run it.
        rival: the original, as the candidate's runtime has it.

    Returns:
        Their names; None if the runtime tells no layer's time.
    """
    runs = int(SECONDS_A_REPEAT / max(latency.latency_ms / 1e3, 1e-6))
    runs = min(max(runs, RUNS[0]), RUNS[1])
    profiles = _profiles(workshop, (name, rival), runs)
    if profiles is None:
        return None
    mine, theirs = profiles
    layers = [str(node.meta["layer"]) for node in network.calls() if node.target in LAYERS]
    return clearly_slower(mine, theirs, layers)


def clearly_slower(mine: Seconds, theirs: Seconds, layers: Sequence[str]) -> list[str]:
    """The layers that were slower in every repeat and by a margin; none, if all that they could
    save is too little to matter.

    >>> clearly_slower({"a": [3, 3], "b": [4, 9]}, {"a": [1, 2], "b": [5, 5]}, ["a", "b"])
    ['a']
    """
    found, saved = [], 0.0
    for layer in dict.fromkeys(layers):
        if layer not in mine or layer not in theirs:
            continue
        ours, float_ones = statistics.median(mine[layer]), statistics.median(theirs[layer])
        if ours > MARGIN * float_ones and min(mine[layer]) > max(theirs[layer]):
            found.append(layer)
            saved += ours - float_ones
    whole = sum(statistics.median(one) for one in mine.values())
    return found if saved >= WORTH * whole else []


def _profiles(
    workshop: Workshop, names: Sequence[str], runs: int
) -> list[dict[str, list[float]]] | None:
    """The layers of each candidate's file, profiled in turn; None if they can't be."""
    if workshop.device is not None:
        return None
    found: list[dict[str, list[float]]] = [{} for _ in names]
    for _ in range(REPEATS):
        for name, one in zip(names, found, strict=True):
            runtime, artifact = workshop.runtime_of(name), workshop.artifacts[name]
            times = workshop.instruments.profile(runtime, artifact, workshop.one, runs)
            if times is None:
                return None
            for layer, seconds in times.items():
                one.setdefault(layer, []).append(seconds)
    return found
