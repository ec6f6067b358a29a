"""Layers that int8 slows down on this machine, found by a fit's own means, and what that gives.

    python benchmarks/float_layers.py [--seconds 5] [--json FILE]

Small networks with random weights and inputs: timing only. Each is quantized; layers that the
profiler finds slower than float are left in float; all three files are timed interleaved on one
thread, batch 1.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from penjing.contract import Artifact, Latency, Session
from penjing.measure.latency import compare
from penjing.network import Network, capture
from penjing.passes import Quantize
from penjing.runtimes.registry import find_runtime
from penjing.search.strategies.schemes import in_float
from penjing.tasks.task import Task
from penjing.trials.evaluation.float_layers import slower_layers
from penjing.trials.evaluation.instruments import Instruments

INPUT = np.random.default_rng(0).standard_normal((1, 3, 32, 32), np.float32)
HEAD = "| network | layers | left in float | int8 ratio | with them in float | of int8 | verdict |"


def block(before: int, after: int, groups: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(before, after, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU())


def networks() -> dict[str, nn.Sequential]:
    grouped = [block(32, 64, 1, 3, 2), block(64, 64, 32), block(64, 64, 16), block(64, 64, 1)]
    depthwise = [
        block(32, 32, 32), block(32, 64, 1, 1), block(64, 64, 64), block(64, 128, 1, 1),
        block(128, 128, 128, 5),
    ]  # fmt: skip
    bodies = {"grouped": (grouped, 64), "depthwise": (depthwise, 128)}
    return {
        name: nn.Sequential(
            block(3, 32, 1), *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)
        ).eval()
        for name, (body, width) in bodies.items()
    }


def row_of(name: str, model: nn.Sequential, seconds: float, folder: Path) -> dict[str, Any]:
    data = [(torch.randn(16, 3, 32, 32), torch.arange(16) % 10)]
    task = Task(model, data[0][0][:2], data, data, data)
    network = capture(model, task.example)
    runtime, recipe = find_runtime("onnxruntime"), (Quantize(samples=16),)
    folder.mkdir()

    def made(title: str, network: Network) -> tuple[Artifact, Session]:
        artifact = runtime.lower(network, folder / f"{title}.onnx")
        return artifact, runtime.load(artifact)

    files = {"original": made("original", network), "int8": made("int8", recipe[0](network, task))}
    times = timed(files, "original", seconds)
    both = [(runtime, files[title][0]) for title in ("int8", "original")]
    slow = slower_layers(both, network, times["int8"], INPUT, Instruments())
    if slow:
        files["mixed"] = made("mixed", in_float(recipe, slow)[0](network, task))
    times = timed(files, "original", seconds)
    row = {"network": name, "layers": len(model) - 2, "left in float": slow,
           "int8 ratio": times["int8"].ratio}  # fmt: skip
    if slow:
        of_int8 = timed(files, "int8", seconds)["mixed"]
        row |= {"mixed ratio": times["mixed"].ratio, "of int8": of_int8.ratio}
        row |= {"low": of_int8.ratio_low, "high": of_int8.ratio_high, "verdict": of_int8.verdict}
    return row


def timed(
    files: Mapping[str, tuple[Artifact, Session]], baseline: str, seconds: float
) -> Mapping[str, Latency]:
    sessions = {title: session for title, (_, session) in files.items()}
    return compare(sessions, INPUT, baseline, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            row_of(name, model, options.seconds, Path(folder) / name)
            for name, model in networks().items()
        ]
    print(HEAD)
    print("|---" * HEAD.count(" |") + "|")
    for one in rows:
        cells = [one["network"], str(one["layers"]), ", ".join(one["left in float"]) or "none"]
        cells.append(f"{one['int8 ratio']:.3f}")
        if one["left in float"]:
            cells += [
                f"{one['mixed ratio']:.3f}",
                f"{one['of int8']:.3f} ({one['low']:.3f} - {one['high']:.3f})",
                one["verdict"],
            ]
        print("| " + " | ".join(cells) + " |")
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
