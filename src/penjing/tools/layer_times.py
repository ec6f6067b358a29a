"""The time of each layer of several networks, from whole files and the runtime's profiler."""

from __future__ import annotations

import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from penjing.contract import Plan, as_arrays
from penjing.errors import InputError
from penjing.measure.latency import compare
from penjing.network import Network, carry_out
from penjing.runtimes.onnx.profile import seconds_by_node
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.targets import Target

ORIGINAL = "the original network"
HELD_OUT = 3  # networks that a table must predict but isn't made from
PROFILES = 3
RUNS = 80

Finish = Callable[[Network], Network]
"""What happens to a network before it is exported, such as quantization."""


@dataclass(frozen=True)
class Timed:
    """A network as a file: its nodes' seconds, and its latency without the profiler."""

    nodes: list[tuple[str, float]]
    latency_ms: float


def require_here(target: Target) -> None:
    """Refuse a target that isn't this machine.

    Raises:
        InputError: it isn't.
    """
    if not target.local or OnnxRuntime.name not in target.runtimes:
        raise InputError(
            f"a latency table is measured on this machine in {OnnxRuntime.name}, but target "
            f"{target.name} is {target.description}; use target 'cpu', or give the budget in macs"
        )


def edited(network: Network, edit: dict[str, Any]) -> Network:
    """A copy of a network with one edit made, to be timed."""
    return carry_out(network, Plan("latency table", {}, (edit,)))


def timed(networks: Iterable[Network], finish: Finish | None, seconds: float) -> list[Timed]:
    """Export every network and time all files interleaved. The weights' values don't matter."""
    runtime = OnnxRuntime()
    with tempfile.TemporaryDirectory() as folder:
        artifacts = []
        sample: Any = None
        for position, network in enumerate(networks):
            sample = one_sample(network)
            path = Path(folder) / f"{position}{runtime.ending}"
            artifacts.append(runtime.lower(finish(network) if finish else network, path))
        profiles = [
            [seconds_by_node(artifact.path, sample, RUNS) for artifact in artifacts]
            for _ in range(PROFILES)
        ]
        sessions = {str(k): runtime.load(artifact) for k, artifact in enumerate(artifacts)}
        times = compare(sessions, sample, "0", seconds)
    return [
        Timed(
            [
                (same[0][0], statistics.median(seconds for _, seconds in same))
                for same in zip(*(profile[k] for profile in profiles), strict=True)
            ],
            times["0"].latency_ms * times[str(k)].ratio,
        )
        for k in range(len(artifacts))
    ]


def by_layer(files: Sequence[Timed], owners: Sequence[Mapping[str, str]]) -> list[dict[str, float]]:
    """The milliseconds of each layer of each file, which add up to the latencies as well as may be.

    latency = scale x (seconds of all nodes) + constant x (number of nodes). The constant is there
    because profiling a node takes time, and the profiler doesn't say how much.

    Args:
        files: what was timed.
        owners: for each of them, by what the profile calls a layer, the layer that it counts
            toward. Others count toward the layer before them.
    """
    each = [_by_owner(file.nodes, owner) for file, owner in zip(files, owners, strict=True)]
    sums = np.array([np.sum(list(layers.values()), 0) for layers in each])
    latencies = np.array([[file.latency_ms] for file in files])
    if len(files) > 2:
        fitted = np.linalg.lstsq(sums / latencies, np.ones(len(sums)))[0]
    else:
        fitted = np.array([(latencies[:, 0] / sums[:, 0]).mean(), 0.0])
    return [
        {layer: max(float(time @ fitted), 0.0) for layer, time in layers.items()} for layers in each
    ]


def _by_owner(
    nodes: Sequence[tuple[str, float]], owners: Mapping[str, str]
) -> dict[str, NDArray[np.float64]]:
    """(seconds, nodes) of each layer."""
    totals: dict[str, NDArray[np.float64]] = defaultdict(lambda: np.zeros(2))
    current = next((owners[name] for name, _ in nodes if name in owners), None)
    current = current or next(iter(owners.values()))
    for name, seconds in nodes:
        current = owners.get(name, current)
        totals[current] += (seconds, 1)
    return dict(totals)


def one_sample(network: Network) -> Any:
    """The first sample of the example."""
    return torch.utils._pytree.tree_map(lambda x: x[:1], as_arrays(network.example))
