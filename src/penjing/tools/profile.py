"""Profile: where parameters, MACs, memory and time go, by layer; or by node, for a file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from penjing.contract import as_arrays
from penjing.measure.costs import costs
from penjing.measure.latency import compare
from penjing.network import Network, capture
from penjing.runtimes.onnx.profile import bytes_by_node, node_times, seconds_by_layer
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.tasks.checks import check
from penjing.tasks.task import Task
from penjing.tools.inputs import opened, random_inputs
from penjing.tools.on_data import require_runs

Say = Callable[[str], None]
"""Called with a line for people: what is being done."""


@dataclass(frozen=True)
class LayerProfile:
    """One layer. Operators without weights are summed up by kind.

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


@dataclass(frozen=True)
class NodeProfile:
    """One node of an ONNX file as it is run.

    Attributes:
        node: its name in the file, or the runtime's name for a node that it added.
        operator: its kind as it is run, such as QLinearConv.
        latency_ms: its share of the measured latency, by the runtime's own profiler; None in the
            one row for all nodes that have weights, such as scales, and were fused away.
        weight_bytes: of its weights, as the file holds them.
    """

    node: str
    operator: str
    latency_ms: float | None
    share: float | None
    weight_bytes: int


def profile(
    task: Task, seconds: float = 3.0, say: Say = lambda _: None
) -> tuple[list[LayerProfile], float]:
    """Layers, the slowest first, and the whole network's latency in milliseconds.

    Batch 1, one thread, ONNX Runtime. The profiler's figures are scaled so that they sum up to the
    latency that was measured without it.

    Args:
        seconds: how long to measure that latency.
        say: called with what is being done.

    >>> import penjing
    >>> data = penjing.Arrays(torch.randn(64, 8), torch.arange(64) % 4)
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Linear(16, 4))
    >>> task = penjing.Task(model, data.x[:2], train=data, test=data)
    >>> layers, latency_ms = penjing.profile(task, seconds=0.1)
    >>> sorted((row.layer, row.params, row.macs) for row in layers if row.params)
    [('0', 144, 128), ('1', 68, 64)]
    """
    say("checking the task")
    task, _ = check(task)
    say("capturing the network")
    network = capture(task.model, task.example, source=task.source)
    sample = torch.utils._pytree.tree_map(lambda x: x[:1], as_arrays(task.example))
    with tempfile.TemporaryDirectory() as folder:
        runtime = OnnxRuntime()
        artifact = runtime.lower(network, Path(folder) / "model.onnx")
        session = runtime.load(artifact)
        say(f"timing the network for {seconds:g} s, then each layer")
        whole = compare({"it": session}, sample, "it", seconds)["it"].latency_ms
        times = seconds_by_layer(artifact.path, sample)
    scale = whole / max(sum(times.values()), 1e-12)
    rows = [
        replace(row, latency_ms=times.pop(key) * scale if (key := _match(row, times)) else None)
        for row in _rows(network)
    ]
    rows += [
        LayerProfile(f"({name})", name, 0, 0, 0, value * scale) for name, value in times.items()
    ]
    return sorted(rows, key=lambda row: (-(row.latency_ms or 0), -row.macs)), whole


def profile_file(
    path: Path, seconds: float = 3.0, say: Say = lambda _: None
) -> tuple[list[NodeProfile], float]:
    """Nodes of an ONNX file, the slowest first, and its latency in milliseconds.

    Batch 1, one thread, random inputs, ONNX Runtime; scaled as for `profile`.

    Args:
        seconds: how long to measure that latency.
        say: called with what is being done.

    Raises:
        InputError: the file is missing, is no ONNX model or fails on random inputs.
        UnsafeError: it is of others, and refused; see `penjing.tools.inputs.opened`.
    """
    say(f"loading {path}")
    with opened(path, whole=True) as (session, artifact):
        inputs = random_inputs(session.inputs)
        require_runs(str(path), session, inputs)
        say(f"timing the file for {seconds:g} s, then each node")
        whole = compare({"it": session}, inputs, "it", seconds)["it"].latency_ms
        times, sizes = node_times(artifact.path, inputs), bytes_by_node(artifact.path)
    total = max(sum(node.seconds for node in times), 1e-12)
    rows = [
        NodeProfile(
            node.name,
            node.operator,
            whole * node.seconds / total,
            node.seconds / total,
            sizes.pop(node.name, 0),
        )
        for node in times
    ]
    rows.sort(key=lambda row: -(row.latency_ms or 0))
    if sizes:
        rows.append(NodeProfile("(fused)", "", None, None, sum(sizes.values())))
    return rows, whole


def _rows(network: Network) -> list[LayerProfile]:
    """A row without times for each layer with weights, and for each kind of operator without."""
    rows: dict[str, LayerProfile] = {}
    for cost in costs(network):
        key = cost.layer if cost.params > 0 and cost.layer else cost.operator
        row = rows.get(key, LayerProfile(key, cost.operator, 0, 0, 0, None))
        rows[key] = replace(
            row,
            params=row.params + cost.params,
            macs=row.macs + cost.macs,
            activation_bytes=row.activation_bytes + cost.activation_bytes,
        )
    return list(rows.values())


def _match(row: LayerProfile, times: Mapping[str, float]) -> str | None:
    """The runtime's name for a row: its layer, or an operator whose name means the same."""
    if row.layer in times:
        return row.layer
    mine = _plain(row.layer)
    return next((name for name in times if _plain(name) == mine), None)


def _plain(name: str) -> str:
    """An operator's name as PyTorch and ONNX have it in common.

    >>> _plain("max_pool2d") == _plain("MaxPool"), _plain("mean") == _plain("ReduceMean")
    (True, True)
    """
    word = name.replace("_", "").lower().removeprefix("reduce")
    words = {"adaptive": "", "global": "", "average": "avg", "normalization": "norm"}
    for long, short in words.items():
        word = word.replace(long, short)
    return word.removesuffix("1d").removesuffix("2d").removesuffix("3d")
