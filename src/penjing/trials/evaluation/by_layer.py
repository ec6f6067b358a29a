"""By layer: the size and the time of each layer, in the original's file and in the answer's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from penjing.contract import Artifact, Json, Latency
from penjing.measure.costs import costs
from penjing.network import Network
from penjing.network.graph.layers import LAYERS, TRANSPOSED, Layer
from penjing.network.graph.shapes import shapes
from penjing.passes.conditions import Condition
from penjing.runtimes.contract import Runtime
from penjing.trials import layers
from penjing.trials.evaluation.instruments import Instruments, runs_in
from penjing.trials.layers import LayerFigures
from penjing.trials.recipe import from_json

SECONDS = 0.5  # about, for one profile
RUNS = (4, 60)
FOLDED = "batch_norm"
"""What runtimes compute together with the layer before it; it has no row."""
RESHAPING = {Condition.REDUCED, Condition.TRAINED}
"""What passes provide that change sizes, or whose network lies on disk."""


Times = Mapping[str, float] | None
"""By layer, or operator without weights; None where nobody tells."""
Sizes = Mapping[str, tuple[str, LayerFigures]]
"""By name, the operator of a layer, and its figures without times."""


def shaping(recipe: Sequence[Json]) -> list[Json]:
    """The recipe up to the last pass that changes a layer's size, or trains.

    What comes behind rounds, which may take long to repeat.

    >>> shaping([{"method": "Drop", "names": ["block"]}, {"method": "Quantize"}])
    [{'method': 'Drop', 'names': ['block']}]
    """
    steps = list(recipe)
    provided = [step.provides for step in from_json(steps)]
    while provided and RESHAPING.isdisjoint(provided[-1]):
        provided.pop()
    return steps[: len(provided)]


def milliseconds(
    runtime: Runtime, artifact: Artifact, latency: Latency, inputs: Any, instruments: Instruments
) -> Times:
    """What each layer of a file takes, so that all together take its latency; None if its runtime
    can't tell."""
    runs = runs_in(SECONDS, latency, RUNS)
    seconds = instruments.profile(runtime, artifact, inputs, runs)
    if not seconds:
        return None
    scale = latency.latency_ms / max(sum(seconds.values()), 1e-12)
    return {layer: scale * time for layer, time in seconds.items()}


def sizes(network: Network) -> Sizes:
    """All layers that have weights, in the order of the graph."""
    rows: dict[str, tuple[str, LayerFigures]] = {}
    operators = [cost for cost in costs(network) if cost.layer and cost.operator != FOLDED]
    weighted = {cost.layer for cost in operators if cost.params}
    for cost in operators:
        if cost.layer in weighted:
            operator, known = rows.get(cost.layer, (cost.operator, LayerFigures()))
            params, macs = known.params + cost.params, known.macs + cost.macs
            rows[cost.layer] = operator, replace(known, params=params, macs=macs)
    dims = shapes(network)
    for node in network.calls():
        if node.target not in LAYERS | TRANSPOSED.keys():
            continue
        view, name = Layer(node), str(node.meta["layer"])
        shape = dims[view.weight]
        channels = shape[1] * view.groups if view.transposed else shape[0]
        if name in rows:
            operator, known = rows[name]
            rows[name] = operator, replace(known, channels=int(channels))
    return rows


def beside(
    before: Sizes, after: Sizes, times_before: Times, times_after: Times
) -> tuple[layers.Layer, ...]:
    """A row for each layer, by the original's name, and for each other operator that was timed."""
    first, second = times_before or {}, times_after or {}
    names = list(dict.fromkeys((*before, *after)))
    others = [name for name in dict.fromkeys((*first, *second)) if name not in names]
    table = []
    for name in (*names, *others):
        operator = (before.get(name) or after.get(name) or ("", None))[0]
        sides = _figures(before, first, name), _figures(after, second, name)
        table.append(layers.Layer(name, operator, *sides))
    return tuple(table)


def _figures(sizes: Sizes, times: Mapping[str, float], name: str) -> LayerFigures | None:
    """The figures in one file; None if it has no such layer."""
    if name in sizes:
        return replace(sizes[name][1], latency_ms=times.get(name))
    return LayerFigures(latency_ms=times[name]) if name in times else None
