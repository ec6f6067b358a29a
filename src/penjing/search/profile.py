"""Profile: where parameters, MACs, memory and time go, layer by layer."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from penjing.contract import as_arrays
from penjing.data import check
from penjing.measure.costs import costs
from penjing.measure.latency import compare
from penjing.network import capture
from penjing.runtimes.onnxruntime import OnnxRuntime, OnnxSession
from penjing.task import Task

RUNS = 60


@dataclass(frozen=True)
class LayerProfile:
    """One layer; operators without weights are gathered under their name.

    Attributes:
        latency_ms: its share of the measured latency, by the runtime's own profiler; None if the
            runtime fused it into a neighbour.
    """

    layer: str
    operator: str
    params: int
    macs: int
    activation_bytes: int
    latency_ms: float | None


def profile(task: Task, seconds: float = 3.0) -> tuple[list[LayerProfile], float]:
    """Layers, the slowest first, and the whole network's latency in milliseconds.

    Batch 1, one thread, ONNX Runtime. The profiler's figures are scaled so that they sum up to the
    latency that was measured without it.
    """
    check(task)
    network = capture(task.model, task.example, source=task.source)
    one = torch.utils._pytree.tree_map(lambda x: x[:1], as_arrays(task.example))
    with tempfile.TemporaryDirectory() as folder:
        runtime = OnnxRuntime()
        artifact = runtime.lower(network, Path(folder) / "model.onnx")
        session = runtime.load(artifact)
        whole = compare({"it": session}, one, "it", seconds)["it"].latency_ms
        times = _times(artifact.path, one, Path(folder))
    scale = whole / max(sum(times.values()), 1e-12)
    merged: dict[str, list[int]] = {}
    operators: dict[str, str] = {}
    for cost in costs(network):
        weighted = cost.params > 0 and cost.macs > 0
        key = cost.layer if weighted else cost.operator
        operators.setdefault(key, cost.operator)
        row = merged.setdefault(key, [0, 0, 0])
        for place, value in enumerate((cost.params, cost.macs, cost.activation_bytes)):
            row[place] += value
    rows = [
        LayerProfile(
            key, operators[key], params, macs, size, times[key] * scale if key in times else None
        )
        for key, (params, macs, size) in merged.items()
    ]
    known = set(merged)
    rows += [
        LayerProfile(f"({name})", name, 0, 0, 0, value * scale)
        for name, value in times.items()
        if name not in known
    ]
    return sorted(rows, key=lambda row: (-(row.latency_ms or 0), -row.macs)), whole


def _times(path: Path, inputs: Any, folder: Path) -> dict[str, float]:
    """Seconds by layer name (or by operator, for those without weights), median over runs."""
    session = OnnxSession(path.read_bytes(), profile_to=folder / "profile")
    for _ in range(RUNS):
        session.run(inputs)
    events = json.loads(Path(session.session.end_profiling()).read_text())
    samples: dict[str, list[float]] = defaultdict(list)
    kinds: dict[str, str] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time").removeprefix("fused ")
            samples[name].append(event["dur"] / 1e6)
            kinds[name] = event["args"]["op_name"]
    found: dict[str, float] = defaultdict(float)
    for name, durations in samples.items():
        layer = name.rsplit("/", 1)[0]
        named = "/" in name and not layer.isdigit()
        usual = sorted(durations)[len(durations) // 2]
        found[layer if named else kinds[name]] += usual
    return dict(found)
