"""A latency table of layers, measured on exported networks, and the check that it adds up."""

from __future__ import annotations

import itertools
import math
import random
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from penjing.contract import Latency, Plan, as_arrays
from penjing.errors import InputError
from penjing.measure.cost_model import Counts, cost_in_macs
from penjing.measure.latency import compare
from penjing.measure.latency_table import LatencyTable, layer_sizes, require_additive
from penjing.network import Axes, Group, Network, carry_out, find_axes
from penjing.passes.structure.channels.widths import Widths, allowed
from penjing.runtimes.onnx.profile import seconds_by_node
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.targets import Target

UNCUT = "the uncut network"
LEVELS = {1: tuple(k / 8 for k in range(8, 0, -1)), 2: (1.0, 0.75, 0.5, 0.25, 0.125)}
"""Which shares of an axis are measured if one colour of axes varies, and if two do."""
HELD_OUT = 3  # networks that the table must predict but isn't made from
PROFILES = 3
RUNS = 80

Finish = Callable[[Network], Network]


def latency_table(
    network: Network,
    target: Target,
    skip: Sequence[str] = (),
    multiple: int | None = None,
    finish: Finish | None = None,
    seconds: float = 20.0,
) -> LatencyTable:
    """Measure the time of each layer at several widths, on this machine, batch 1, one thread.

    Whole networks are exported at several combinations of widths, in which axes that share a layer
    vary independently. ONNX Runtime's profiler gives the time of each node. Nodes without weights
    (additions, changes of memory layout) count toward the layer that runs before them. Profiling
    itself takes time, so a scale and a constant per node are fitted to the latencies of the same
    files without the profiler.

    Args:
        network: the network whose layers are timed.
        target: this machine.
        skip, multiple: as for the pass that will use the table. By default `multiple` is half the
            target's `channel_multiple`, as in a fit.
        finish: what happens to a cut network before it is exported, such as quantization.
        seconds: about how long to time the networks. Exporting each takes a few more seconds.

    Raises:
        InputError: the target isn't this machine, or the table is off by more than 10 % for the
            uncut network or for one of three networks that it wasn't made from.

    Source: T.-J. Yang et al., "NetAdapt: Platform-Aware Neural Network Adaptation for Mobile
    Applications", 2018 (summed tables of layers). Profiling whole networks is penjing's addition.
    """
    if not target.local or OnnxRuntime.name not in target.runtimes:
        raise InputError(
            f"a latency table is measured on this machine in {OnnxRuntime.name}, but target "
            f"{target.name} is {target.description}; use target 'cpu', or give the budget in macs"
        )
    axes = find_axes(network)
    chosen, _ = allowed(axes, skip, False)
    widths = Widths(0.0, multiple=multiple or max(1, target.channel_multiple // 2))
    choices, held = _choices(axes, chosen, widths), _held_out(chosen, widths)
    tried = _measured(network, [*choices, *held], finish, seconds)
    table = _fitted(axes, tried[: len(choices)], target.description)
    predicted = table.cost_model(axes).total
    cut = {len(choices) + k: f"network {k + 1} cut at random" for k in range(len(held))}
    names = {0: UNCUT} | cut
    require_additive(
        {name: (predicted(tried[k].counts), tried[k].latency_ms) for k, name in names.items()}
    )
    return table


def require_predicted(
    table: LatencyTable, network: Network, cut: Network, seconds: float = 5.0
) -> Latency:
    """Time a network and its cut version side by side, and compare that with the prediction.

    The predicted ratio of the two is compared with the measured one, because the whole machine may
    have become faster or slower since the table was made.

    Args:
        network: the network that the table was made from.
        cut: the network with the widths that the table led to. Both are given as they will be
            exported.

    Returns:
        The measured latency of the cut file. Its `ratio` is relative to the uncut network.

    Raises:
        InputError: the predicted latency is off by more than 10 %. The message gives both figures.
    """
    runtime = OnnxRuntime()
    with tempfile.TemporaryDirectory() as folder:
        sessions = {
            name: runtime.load(runtime.lower(variant, Path(folder) / f"{name}{runtime.ending}"))
            for name, variant in (("uncut", network), ("cut", cut))
        }
        times = compare(sessions, _one(network), "uncut", seconds)
    before, after = (table.cost_model(find_axes(variant)).total({}) for variant in (network, cut))
    measured = times["uncut"].latency_ms
    require_additive({"the cut": (measured * after / before, measured * times["cut"].ratio)})
    return times["cut"]


@dataclass(frozen=True)
class _Tried:
    """One choice of widths as a file: its nodes' seconds, and its latency without the profiler."""

    counts: Counts
    nodes: list[tuple[str, float]]
    latency_ms: float


def _choices(axes: Axes, chosen: Sequence[Group], widths: Widths) -> list[Counts]:
    """The choices of widths to measure, the uncut network first."""
    colours = _colours(axes, chosen)
    levels = LEVELS[len(set(colours.values())) or 1]
    choices: list[Counts] = []
    for pair in itertools.product(levels, repeat=len(set(colours.values()))):
        counts = {
            group.name: widths.choices(
                group.size, math.ceil(pair[colours[group.name]] * group.size)
            )[-1]
            for group in chosen
        }
        if counts not in choices:
            choices.append(counts)
    return choices


def _colours(axes: Axes, chosen: Sequence[Group]) -> dict[str, int]:
    """Give each axis colour 0 or 1, so that axes that share a layer differ as far as possible."""
    neighbours = cost_in_macs(axes).neighbours
    names = {group.name for group in chosen}
    colours: dict[str, int] = {}
    for start in (group.name for group in chosen):
        colours.setdefault(start, 0)
        waiting = [start]
        while waiting:
            name = waiting.pop()
            new = sorted((neighbours[name] & names) - colours.keys())
            colours |= dict.fromkeys(new, 1 - colours[name])
            waiting += new
    return colours


def _held_out(chosen: Sequence[Group], widths: Widths) -> list[Counts]:
    """Random choices of widths, at least a quarter of each axis. They are always the same."""
    draw = random.Random(0)
    return [
        {group.name: draw.choice(widths.choices(group.size, group.size // 4)) for group in chosen}
        for _ in range(HELD_OUT if chosen else 0)
    ]


def _measured(
    network: Network, choices: Sequence[Counts], finish: Finish | None, seconds: float
) -> list[_Tried]:
    """Export every choice and time all files interleaved. The weights' values don't matter."""
    runtime, sample = OnnxRuntime(), _one(network)
    with tempfile.TemporaryDirectory() as folder:
        artifacts = []
        for position, counts in enumerate(choices):
            keep = {name: list(range(count)) for name, count in counts.items()}
            cut = carry_out(network, Plan("latency table", {}, ({"edit": "shrink", "axes": keep},)))
            path = Path(folder) / f"{position}{runtime.ending}"
            artifacts.append(runtime.lower(finish(cut) if finish else cut, path))
        profiles = [
            [seconds_by_node(artifact.path, sample, RUNS) for artifact in artifacts]
            for _ in range(PROFILES)
        ]
        sessions = {str(k): runtime.load(artifact) for k, artifact in enumerate(artifacts)}
        times = compare(sessions, sample, "0", seconds)
    return [
        _Tried(
            counts,
            [
                (same[0][0], statistics.median(seconds for _, seconds in same))
                for same in zip(*(profile[k] for profile in profiles), strict=True)
            ],
            times["0"].latency_ms * times[str(k)].ratio,
        )
        for k, counts in enumerate(choices)
    ]


def _fitted(axes: Axes, tried: Sequence[_Tried], machine: str) -> LatencyTable:
    """The profiles as rows, corrected so that they add up to the latencies as closely as possible.

    latency = scale x (seconds of all nodes) + constant x (number of nodes). The constant is there
    because profiling a node takes time, and the profiler doesn't say how much.
    """
    layers = layer_sizes(axes)
    whole = {name: group.size for name, group in axes.free.items()}
    times = [_by_layer(choice.nodes, layers) for choice in tried]
    sums = np.array([np.sum(list(by_layer.values()), 0) for by_layer in times])
    latencies = np.array([[choice.latency_ms] for choice in tried])
    if len(tried) > 2:
        fitted = np.linalg.lstsq(sums / latencies, np.ones(len(sums)))[0]
    else:
        fitted = np.array([(latencies[:, 0] / sums[:, 0]).mean(), 0.0])
    rows = []
    for choice, by_layer in zip(tried, times, strict=True):
        for layer, time in by_layer.items():
            inputs, outputs = (size.at({**whole, **choice.counts}) for size in layers[layer])
            rows.append((layer, inputs, outputs, max(float(time @ fitted), 0.0)))
    return LatencyTable(OnnxRuntime.name, machine, tuple(rows))


def _by_layer(
    nodes: Sequence[tuple[str, float]], layers: Mapping[str, Any]
) -> dict[str, NDArray[np.float64]]:
    """(seconds, nodes) of each layer. Nodes without weights count toward the layer before them."""
    totals: dict[str, NDArray[np.float64]] = defaultdict(lambda: np.zeros(2))
    current = next((name for name, _ in nodes if name in layers), next(iter(layers)))
    for name, seconds in nodes:
        current = name if name in layers else current
        totals[current] += (seconds, 1)
    return dict(totals)


def _one(network: Network) -> Any:
    """The first sample of the example."""
    return torch.utils._pytree.tree_map(lambda x: x[:1], as_arrays(network.example))
