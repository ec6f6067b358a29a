"""Time and bytes of each node of an ONNX file, as ONNX Runtime runs it on the CPU."""

from __future__ import annotations

import json
import re
import statistics
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from penjing.runtimes.onnx.session import OnnxSession

FUSED_INTO_CONVOLUTIONS = {"Add", "Clip", "HardSigmoid", "Relu", "Sigmoid"}
ADDED_TO_NAMES = re.compile(r"(_nchwc|_bn|_token_\d+)+$")
"""What ONNX Runtime's optimizers append to the name of a node that they replace."""


def seconds_by_layer(path: Path, inputs: Any, runs: int = 60) -> dict[str, float]:
    """The seconds of each layer, or each operator without weights, by ONNX Runtime's profiler.

    It runs on one thread. The file needs the layers' names that `OnnxRuntime.lower` writes.
    """
    totals: dict[str, float] = defaultdict(float)
    for name, seconds in seconds_by_node(path, inputs, runs):
        totals[name] += seconds
    return dict(totals)


def seconds_by_node(path: Path, inputs: Any, runs: int = 60) -> list[tuple[str, float]]:
    """The terms that `seconds_by_layer` sums: (layer or operator, seconds), in execution order."""
    return [(node.layer or node.operator, node.seconds) for node in node_times(path, inputs, runs)]


@dataclass(frozen=True)
class NodeTime:
    """The time of one node, as ONNX Runtime runs it after its optimizations.

    Attributes:
        name: the name of the node in the file from which it was made, or else the runtime's name.
        operator: the operator that runs, such as QLinearConv.
        layer: the module whose weights it uses, or None.
        seconds: the time of one run.
        provider: the execution provider that ran it.
    """

    name: str
    operator: str
    layer: str | None
    seconds: float
    provider: str


def node_times(path: Path, inputs: Any, runs: int = 60) -> list[NodeTime]:
    """The time of each node that runs, in order, on one thread.

    It is the mean over the middle half of the runs. The profiler counts whole microseconds, so the
    median of a short node's times would be coarse.
    """
    model = _all_named(onnx.load(path, load_external_data=False))
    with tempfile.TemporaryDirectory() as folder:
        session = OnnxSession(model.SerializeToString(), profile_to=Path(folder) / "profile")
        for _ in range(runs):
            session.run(inputs)
        events = json.loads(Path(session.session.end_profiling()).read_text())
    samples: dict[int, list[float]] = defaultdict(list)
    names: dict[int, tuple[str, str, str]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            node = int(event["args"]["node_index"])  # names aren't unique, for example Transposes'
            samples[node].append(event["dur"] / 1e6)
            name = event["name"].removesuffix("_kernel_time").removeprefix("fused ")
            kind, provider = event["args"]["op_name"], event["args"]["provider"]
            names[node] = ADDED_TO_NAMES.sub("", name), kind, provider
    origins = _origins(model.graph)
    times = []
    for node, durations in samples.items():
        name, operator, provider = names[node]
        origin = origins.get(name)
        seconds = statistics.mean(
            sorted(durations)[len(durations) // 4 : -(len(durations) // 4) or None]
        )
        layer = _layer(origin) if origin else None
        if origin and not layer and origin.name != name:  # named after a value of that operator
            layer = origin.op_type
        title = origin.name if origin else name
        times.append(NodeTime(title, operator, layer, seconds, provider))
    return times


def bytes_by_node(path: Path) -> dict[str, int]:
    """Bytes of the weights in a file, by the name of the node that computes with them.

    Nodes that only change the form of weights (dequantize, unpack, transpose) don't count; the node
    that reads their result does. If there are several, it is the first. Nodes without a name get
    the name `/Operator.position`.
    """
    graph = _all_named(onnx.load(path, load_external_data=False)).graph
    sizes = {constant.name: _bytes(constant) for constant in graph.initializer}
    made_of = {name: {name} for name in sizes}
    totals: dict[str, int] = defaultdict(int)
    for node in graph.node:
        if node.op_type == "Constant":
            sizes |= {node.output[0]: sum(_bytes(attribute.t) for attribute in node.attribute)}
            made_of[node.output[0]] = {node.output[0]}
        parts = [made_of[name] for name in node.input if name in made_of]
        if parts and len(parts) == sum(map(bool, node.input)):
            made_of |= dict.fromkeys(node.output, set().union(*parts))
        elif parts:
            totals[node.name] += sum(sizes.pop(name, 0) for name in set().union(*parts))
    return dict(totals)


def _all_named(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with a name for each node, by which it can be found in the profile."""
    taken = {node.name for node in model.graph.node}
    for position, node in enumerate(model.graph.node):
        name = f"/{node.op_type}.{position}"
        node.name = node.name or next(
            free for k in range(len(taken) + 1) if (free := name + "_" * k) not in taken
        )
    return model


def _layer(node: onnx.NodeProto) -> str | None:
    return node.name.rpartition("/")[0] or None


def _origins(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """The node for each node's name and for each value's name.

    Where ONNX Runtime changes the memory layout (NCHWc), it names a node after the last value of
    all that it fused into it, and turns a lone batch normalization into a convolution. So a value
    of an operator that is fused into a layer maps to the layer's node.
    """
    origins: dict[str, onnx.NodeProto] = {}
    order: list[str] = []
    for node in graph.node:
        origin = node
        if not _layer(node) and node.op_type in FUSED_INTO_CONVOLUTIONS:
            known = [name for name in node.input if name in origins]
            origin = origins[max(known, key=order.index)] if known else node
        origins[node.name] = node
        origins |= dict.fromkeys(node.output, origin)
        order += node.output
    return origins


def weight_bytes(path: Path) -> int:
    """Bytes of all weights in an ONNX file. Packed weights count with their packed size."""
    model = onnx.load(path, load_external_data=False)
    return sum(_bytes(weight) for weight in model.graph.initializer)


def _bytes(tensor: onnx.TensorProto) -> int:
    return int(np.asarray(onnx.numpy_helper.to_array(tensor)).nbytes)
