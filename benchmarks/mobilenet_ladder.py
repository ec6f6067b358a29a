"""The post-training ladder, rung by rung, on a MobileNetV2 for 32x32 images that is trained here.

    PENJING_DATA=FOLDER python benchmarks/mobilenet_ladder.py [--json FILE]

JPEG-compressed CIFAR-10. Accuracy is that of the exported file in ONNX Runtime, on the test
images, with the paired drop from the float file and its bound. With --json the trained weights
and the finished rows are kept beside it, and a run that was cut off goes on where it was.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_folder import data_folder
from networks import EXAMPLE, Inverted, conv_bn
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from penjing.contract import Array, Plan
from penjing.measure.scores import drop, score
from penjing.network import Network, capture, carry_out
from penjing.network.graph.layers import LAYERS
from penjing.passes import CorrectBias, Equalize, Quantize
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.tasks.data import Arrays
from penjing.tasks.reference import find_task
from penjing.tasks.task import Task
from penjing.tune.options import TuneOptions
from penjing.tune.train import train

SAMPLES = 512
FLOAT = "float"
RUNGS = (
    FLOAT,
    "float, equalized (ReLU6 made ReLU)",
    "per tensor, min-max",
    "per tensor, min-max, equalized",
    "per tensor, min-max, equalized, corrected",
    "per tensor, least squares",
    "per tensor, least squares, equalized",
    "per tensor, least squares, equalized, corrected",
    "per channel, min-max",
    "per channel, least squares",
    "per channel, least squares, corrected",
    "per channel, least squares, equalized, corrected",
    "per tensor, min-max, corrected",
    "per tensor, least squares, corrected",
    "W4A8: per tensor, min-max",
    "W4A8: per tensor, min-max, equalized",
    "W4A8: per tensor, min-max, equalized, corrected",
    "W4A8: per tensor, least squares",
    "W4A8: per tensor, least squares, equalized",
    "W4A8: per tensor, least squares, equalized, corrected",
    "W4A8: per channel, least squares",
    "W4A8: per channel, least squares, corrected",
    "float, uneven",
    "uneven: per tensor, min-max",
    "uneven: per tensor, least squares",
    "uneven: per tensor, min-max, equalized",
    "uneven: per tensor, min-max, equalized, corrected",
    "uneven: per channel, least squares",
)
"""W8A8 where nothing else is said; `min-max` and `least squares` are the ranges of weights and of
values, `corrected` are the biases. With W4A8 the first and the last layer keep eight bits.
`uneven` is a network made for the purpose: the equalized one, every channel scaled by a random
number from 0.1 to 10, so that it computes the same from weights of very different ranges."""


class MobileNetV2(nn.Module):
    """As in table 2 of Sandler et al., 2018, but for the first two strides of 2, which are 1."""

    TABLE = (
        (1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2),
        (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    )  # fmt: skip

    def __init__(self, width: float) -> None:
        super().__init__()

        def wide(channels: int) -> int:
            return max(8, round(channels * width / 8) * 8)

        before = wide(32)
        layers: list[nn.Module] = [conv_bn(3, before, 3)]
        for expand, channels, repeats, stride in self.TABLE:
            for index in range(repeats):
                after = wide(channels)
                layers.append(Inverted(before, after, stride if index == 0 else 1, expand))
                before = after
        last = max(1280, wide(1280))
        self.features = nn.Sequential(*layers, conv_bn(before, last, 1))
        self.classifier = nn.Linear(last, 10)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return found


def trained(width: float, epochs: float, kept: Path | None) -> Task:
    """The trained network with its data; weights from `kept` if they are there."""
    torch.manual_seed(0)
    task = dataclasses.replace(
        find_task(EXAMPLE), model=MobileNetV2(width).eval(), name=f"MobileNetV2 x{width:g}"
    )
    if kept is None or not kept.exists():
        options = TuneOptions(epochs=epochs, lr=0.1, distill=0.0, precision="float32")
        network = capture(task.model, task.example)
        state = train(network, task, options, _progress("training")).network.state_dict()
        if kept is None:
            task.model.load_state_dict(state)
            return task
        save_file({name: one.contiguous() for name, one in state.items()}, kept)
    task.model.load_state_dict(load_file(kept))
    return task


def _progress(name: str) -> Callable[[str, float], None]:
    begin = last = time.monotonic()

    def say(line: str, share: float) -> None:
        nonlocal last
        if time.monotonic() - last > 10 or share >= 1:
            last = time.monotonic()
            spent = (last - begin) / 60
            print(f"{name}: {share:4.0%} {line}, {spent:.1f} min", file=sys.stderr, flush=True)

    return say


def quantized(network: Network, task: Task, bits: int, scales: str, ranges: str) -> Network:
    """With `ranges="minmax"` the weights' scales are those of a plain quantizer as well."""
    options: dict[str, Any] = {"weights": bits, "scales": scales, "ranges": ranges}
    plan = Quantize(**options, samples=SAMPLES).plan(network, task)
    if ranges == "minmax":
        folded = carry_out(network, dataclasses.replace(plan, edits=plan.edits[:-1]))
        nodes = {node.name: node for node in folded.calls()}
        edit = copy.deepcopy(dict(plan.edits[-1]))
        for name, one in edit["weights"].items():
            weight: Any = nodes[name].args[1]
            largest = folded.tensor(str(weight.target)).detach().abs().flatten(1).amax(1)
            if scales == "tensor":
                largest = largest.max().expand(len(largest))
            one["scales"] = (largest.clamp_min(1e-12) / one["high"]).tolist()
        plan = dataclasses.replace(plan, edits=(*plan.edits[:-1], edit))
    return carry_out(network, plan)


def uneven(network: Network, task: Task) -> Network:
    """The same function, but for ReLU6, with each channel scaled by 10^u, u from -1 to 1."""
    plan = Equalize().plan(network, task)
    draw = np.random.default_rng(0)
    *others, last = plan.edits
    factors = {
        name: (np.array(one) * 10 ** draw.uniform(-1, 1, len(one))).tolist()
        for name, one in last["scales"].items()
    }
    edit = {"edit": "scale_channels", "scales": factors}
    return carry_out(network, dataclasses.replace(plan, edits=(*others, edit)))


def spread(network: Network) -> float:
    """The largest channel's range over the median channel's, of the layer where that is most."""
    plan = Plan("fold", {}, ({"edit": "fold_batch_norm"},))
    folded, most = carry_out(network, plan), 1.0
    for node in folded.calls():
        if node.target in LAYERS:
            weight: Any = node.args[1]
            ranges = folded.tensor(str(weight.target)).detach().abs().flatten(1).amax(1)
            most = max(most, float(ranges.max() / ranges.median()))
    return most


def spreads(task: Task) -> str:
    found = {name: spread(climb(name, task)) for name in RUNGS if name.startswith(FLOAT)}
    return ", ".join(f"{value:.1f} {name}" for name, value in found.items())


def climb(name: str, task: Task) -> Network:
    """The network of a rung, by the words in its name."""
    network = capture(task.model, task.example)
    if "uneven" in name:
        network = uneven(network, task)
    if "equalized" in name:
        network = Equalize()(network, task)
    if not name.startswith("float"):
        scales = "tensor" if "per tensor" in name else "channel"
        ranges = "minmax" if "min-max" in name else "mse"
        network = quantized(network, task, 4 if "W4" in name else 8, scales, ranges)
    return CorrectBias(samples=SAMPLES)(network, task) if "corrected" in name else network


def hits(network: Network, task: Task) -> tuple[Array, int]:
    """Which test images the exported file gets right in ONNX Runtime, and its bytes."""
    runtime = OnnxRuntime()
    with tempfile.TemporaryDirectory() as folder:
        artifact = runtime.lower(network, Path(folder, "rung.onnx"))
        return score(runtime.load(artifact), task.test, task.metric), artifact.file_bytes


def table(record: dict[str, Any]) -> str:
    lines = ["| rung | accuracy | drop | 95 % bound | kB |", "|---|---|---|---|---|"]
    found = {row["rung"]: row for row in record["rows"]}
    right = {name: _hits(row) for name, row in found.items()}
    for name in (one for one in RUNGS if one in found):
        fall = ""
        if name != FLOAT and FLOAT in right:
            one = drop(right[FLOAT], right[name])
            fall = f"{one.drop:+.2f} | {one.bound:.2f}"
        kilobytes = found[name]["file_bytes"] / 1000
        accuracy = 100 * right[name].mean()
        lines.append(f"| {name} | {accuracy:.2f} | {fall or ' | '} | {kilobytes:.1f} |")
    return "\n".join(lines)


def _hits(row: dict[str, Any]) -> Array:
    right = np.ones(row["of"])
    right[row["wrong"]] = 0.0
    return right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--width", type=float, default=0.35)
    parser.add_argument("--epochs", type=float, default=4.0)
    parser.add_argument("--images", type=int, default=10_000, help="of the test data, at most")
    options = parser.parse_args()
    data_folder(needed_by=parser)
    torch.set_num_threads(1)
    kept = options.json.with_suffix(".safetensors") if options.json else None
    task = trained(options.width, options.epochs, kept)
    assert isinstance(task.test, Arrays)
    chosen = np.random.default_rng(0).permutation(task.test.samples)[: options.images]
    test = task.test.subset(np.sort(chosen))
    task = dataclasses.replace(task, test=test)
    record: dict[str, Any] = {"rows": []}
    if options.json and options.json.exists():
        record = json.loads(options.json.read_text())
    for name in RUNGS:
        if any(row["rung"] == name for row in record["rows"]):
            continue
        begin = time.monotonic()
        right, file_bytes = hits(climb(name, task), task)
        wrong = np.flatnonzero(right == 0).tolist()
        row = {"rung": name, "file_bytes": file_bytes, "of": len(right), "wrong": wrong}
        record["rows"].append(row | {"accuracy": float(right.mean())})
        spent = time.monotonic() - begin
        print(f"{name}: {100 * right.mean():.2f}, {spent:.0f} s", file=sys.stderr, flush=True)
        if options.json:
            partial = options.json.with_suffix(".partial")
            partial.write_text(json.dumps(record))
            partial.replace(options.json)
    print(table(record))
    print(f"\nLargest channel's range over the median's, in the worst layer: {spreads(task)}.")


if __name__ == "__main__":
    main()
