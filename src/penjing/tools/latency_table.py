"""A latency table of layers, measured on exported networks, and the check that it adds up."""

from __future__ import annotations

import itertools
import math
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from penjing.contract import Latency
from penjing.measure.cost_model import Counts, cost_in_macs
from penjing.measure.latency import compare
from penjing.measure.latency_table import LatencyTable, layer_sizes, require_additive
from penjing.network import Axes, Group, Network, find_axes
from penjing.passes.structure.channels.widths import Widths, allowed
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.targets import Target
from penjing.tools.layer_times import (
    HELD_OUT,
    ORIGINAL,
    Finish,
    Timed,
    by_layer,
    edited,
    one_sample,
    require_here,
    timed,
)

LEVELS = {1: tuple(k / 8 for k in range(8, 0, -1)), 2: (1.0, 0.75, 0.5, 0.25, 0.125)}
"""Which shares of an axis are measured if one colour of axes varies, and if two do."""


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
        skip, multiple: as for the pass that will use the table. By default `multiple` is the
            target's `width_multiple`, as in a fit.
        finish: what happens to a cut network before it is exported, such as quantization.
        seconds: about how long to time the networks. Exporting each takes a few more seconds.

    Raises:
        InputError: the target isn't this machine, or the table is off by more than 10 % for the
            original network or for one of three networks that it wasn't made from.

    Source: T.-J. Yang et al., "NetAdapt: Platform-Aware Neural Network Adaptation for Mobile
    Applications", 2018 (summed tables of layers). Profiling whole networks is penjing's addition.
    """
    require_here(target)
    axes = find_axes(network)
    chosen, _ = allowed(axes, skip, False)
    widths = Widths(0.0, multiple=multiple or target.width_multiple)
    choices, held = _choices(axes, chosen, widths), _held_out(chosen, widths)
    files = timed(_cut(network, [*choices, *held]), finish, seconds)
    table = _fitted(axes, choices, files[: len(choices)], target.description)
    predicted = table.cost_model(axes).total
    pairs = {ORIGINAL: (predicted({}), files[0].latency_ms)}
    for number, (counts, file) in enumerate(zip(held, files[len(choices) :], strict=True), 1):
        pairs[f"network {number} cut at random"] = predicted(counts), file.latency_ms
    require_additive(pairs)
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
        times = compare(sessions, one_sample(network), "uncut", seconds)
    before, after = (table.cost_model(find_axes(variant)).total({}) for variant in (network, cut))
    measured = times["uncut"].latency_ms
    require_additive({"the cut": (measured * after / before, measured * times["cut"].ratio)})
    return times["cut"]


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


def _cut(network: Network, choices: Sequence[Counts]) -> Iterator[Network]:
    """The network with each choice of widths."""
    for counts in choices:
        keep = {name: list(range(count)) for name, count in counts.items()}
        yield edited(network, {"edit": "shrink", "axes": keep})


def _fitted(
    axes: Axes, choices: Sequence[Counts], files: Sequence[Timed], machine: str
) -> LatencyTable:
    """The times of the layers as rows."""
    layers = layer_sizes(axes)
    whole = {name: group.size for name, group in axes.free.items()}
    times = by_layer(files, [{layer: layer for layer in layers}] * len(files))
    rows = []
    for counts, mine in zip(choices, times, strict=True):
        for layer, ms in mine.items():
            inputs, outputs = (size.at({**whole, **counts}) for size in layers[layer])
            rows.append((layer, inputs, outputs, ms))
    return LatencyTable(OnnxRuntime.name, machine, tuple(rows))
