"""Every network in every runtime that is installed, fp32 and int8, beside the runtime's own int8.

    PENJING_DATA=<folder with data/ and models/> python benchmarks/runtimes.py [--json FILE]
        [--only NAME ...] [--runtimes NAME ...] [--seconds 6] [--draws 1]

Per file: `worst` and `same`, how far its outputs are from those of the network that it was made of
and the share of the same decisions; `kept`, the share of fp32's decisions; accuracy; `points`, its
accuracy less that of the peer's int8 with the 95 % interval of that paired difference; bytes;
operators by the unit that ran them; and `ratio`, its latency over that of the peer's int8 in the
same windows, one thread, batch 1. The peers are ONNX Runtime's quantize_static, NNCF, ExecuTorch's
XNNPACK quantizer and Google's ai-edge-quantizer, all on the same 512 inputs. With --draws N both
quantizers see N draws of such inputs, one after the other, and `accuracy` and `points` are means
over the N files of each; all else is of the first.
`JPEG ResNet-56` has 10,000 test images where the lossless one has 1,468, so that its `points` tell
smaller differences apart. Networks with random weights are there for parity and time. With --json a
row that is there isn't made again, so that runtimes whose packages exclude each other can be
measured by several Pythons into one file.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_folder import data_folder
from harness import agreement, cell, table, units
from networks import cifar_task, densenet_task, jpeg_task, mobilenet_task, vit_task
from peers import PEERS, SAMPLES

from penjing.contract import Array, Session
from penjing.measure.latency import compare
from penjing.measure.scores import score
from penjing.network import Network, capture
from penjing.passes import Quantize
from penjing.runtimes.contract import Runtime
from penjing.runtimes.registry import find_runtime, installed
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task

Row = dict[str, Any]
COLUMNS = (
    "model", "runtime", "file", "worst", "same", "kept", "accuracy", "points", "latency_ms",
    "ratio", "interval", "file_bytes", "units",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="*", default=[], help="models, by the begin of their name")
    parser.add_argument(
        "--runtimes", nargs="*", default=[one for one in installed() if one in PEERS]
    )
    parser.add_argument("--seconds", type=float, default=6.0, help="of timing, for each runtime")
    parser.add_argument("--draws", type=int, default=1, help="of calibration inputs, for accuracy")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = data_folder()
    makers: dict[str, Callable[[], Task]] = {
        "ResNet-20": lambda: cifar_task(20, data),
        "ResNet-56": lambda: cifar_task(56, data),
        "JPEG ResNet-56": lambda: jpeg_task(56, data),
        "MobileNetV2": mobilenet_task,
        "DenseNet-121": densenet_task,
        "ViT-Tiny": vit_task,
    }
    rows: list[Row] = []
    if options.json and options.json.exists():
        rows = json.loads(options.json.read_text())["rows"]
    done = {(row["model"], row["runtime"]) for row in rows}
    for name, make in makers.items():
        wanted = [one for one in options.runtimes if (name, one) not in done]
        if (options.only and not any(name.startswith(one) for one in options.only)) or not wanted:
            continue
        try:
            task = make()
        except FileNotFoundError as error:
            print(f"skipped {name}: {error}", file=sys.stderr)
            continue
        for runtime in wanted:
            rows += rows_of(name, task, find_runtime(runtime), options.seconds, options.draws)
            if options.json:
                options.json.write_text(json.dumps({"rows": rows}, indent=1))
    print(table(rows, COLUMNS, cell))


def rows_of(name: str, task: Task, runtime: Runtime, seconds: float, draws: int) -> list[Row]:
    """One row each for fp32, the peer's int8 and ours."""
    network = capture(task.model, task.example)
    quantized = Quantize(samples=SAMPLES, **runtime.constraints)(network, task)
    rows: dict[str, Row] = {}
    sessions: dict[str, Session] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for file, one in (("fp32", network), ("penjing int8", quantized)):
            artifact = runtime.lower(one, place / f"{file.replace(' ', '-')}{runtime.ending}")
            sessions[file] = runtime.load(artifact)
            rows[file] = agreement(one, sessions[file], task)
            rows[file] |= {"file_bytes": artifact.file_bytes, "units": units(runtime, artifact)}
        theirs = PEERS[runtime.name](task, place)
    sessions["peer int8"] = runtime.open(theirs)
    rows["peer int8"] = agreement(network, sessions["peer int8"], task)
    rows["peer int8"]["file_bytes"] = sum(map(len, theirs))
    right = {
        file: score(one, task.test, task.metric) for file, one in sessions.items() if task.test
    }
    for draw in range(1, draws if task.test else 1):
        for file, scores in _scores_of_draw(network, task, runtime, draw).items():
            right[file] = right[file] + (scores - right[file]) / (draw + 1)
    one = task.example[:1].numpy()
    times = compare(sessions, one, "peer int8", seconds)
    for file, row in rows.items():
        row |= {"model": name, "runtime": runtime.name, "file": file}
        ours = file == "penjing int8"  # the others are held against fp32 already
        row["kept"] = agreement(network, sessions[file], task)["same"] if ours else row["same"]
        if task.test:
            row["accuracy"] = float(right[file].mean())
            row["points"] = _points(right[file] - right["peer int8"])
        row |= {"latency_ms": times[file].latency_ms, "ratio": times[file].ratio}
        row["interval"] = [times[file].ratio_low, times[file].ratio_high]
        row["disturbed"] = times[file].disturbed
        print(row, file=sys.stderr)
    return [rows[file] for file in ("fp32", "peer int8", "penjing int8")]


def _scores_of_draw(network: Network, task: Task, runtime: Runtime, draw: int) -> dict[str, Array]:
    """Right or wrong for each test image by either int8 file, calibrated on other inputs."""
    assert isinstance(task.train, Arrays)  # as the data of every trained network is
    picked = np.random.default_rng(draw).choice(task.train.samples, SAMPLES, replace=False)
    other = replace(task, train=task.train.subset(picked))
    quantized = Quantize(samples=SAMPLES, **runtime.constraints)(network, other)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        ours = runtime.load(runtime.lower(quantized, place / f"ours{runtime.ending}"))
        theirs = runtime.open(PEERS[runtime.name](other, place))
        both = {"penjing int8": ours, "peer int8": theirs}
        return {file: score(one, task.test, task.metric) for file, one in both.items()}


def _points(differences: Array) -> list[float]:
    """The mean in points, and half of its 95 % interval."""
    half = 1.96 * float(differences.std()) / len(differences) ** 0.5
    return [100 * float(differences.mean()), 100 * half]


if __name__ == "__main__":
    main()
