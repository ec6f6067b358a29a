"""What a ResNet keeps with few bits and no training: rounded to nearest, in turn, or as learned.

    PENJING_DATA=<folder with data/ and models/> python benchmarks/quantize.py [--json FILE]
        [--models 20 56] [--seeds 3] [--steps 300] [--peers PYTHON]

1,024 calibration images without labels; accuracy is of the exported file in ONNX Runtime, on the
1,468 lossless test images, with the paired difference to the float file and its 95 % bound. A row
that is in FILE already isn't measured again. PYTHON is one that has the peers' packages (openvino,
nncf, executorch); its int8 files are judged on the same images.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from data_folder import data_folder, require
from harness import scores_of, table
from networks import cifar_task

from penjing.contract import Array
from penjing.measure.scores import drop
from penjing.network import Network, capture
from penjing.passes import Gptq, Pass, Quantize, Reconstruct
from penjing.tasks.task import Task

Row = dict[str, Any]
WIDTHS = ((8, 8), (4, 8), (4, 4), (3, 8), (2, 8))
SAMPLES = 1024
COLUMNS = (
    "model",
    "bits",
    "rounding",
    "seed",
    "accuracy",
    "drop",
    "bound",
    "file_bytes",
    "seconds",
)
PEER_LINE = re.compile(r"(.*int8.*?)\s+accuracy (\S+) .* file_bytes (\d+)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--models", type=int, nargs="*", default=[20, 56])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--peers", help="a Python that has their packages")
    options = parser.parse_args()
    torch.set_num_threads(1)
    known: list[Row] = []
    if options.json and options.json.exists():
        known = json.loads(options.json.read_text())["rows"]
    rows = Rows(known, options.json)
    tasks = {depth: cifar_task(depth, data_folder()) for depth in options.models}
    if options.peers:
        for depth in tasks:
            rows.add_all(f"ResNet-{depth}", lambda depth=depth: peers(options.peers, depth))
    for depth, task in tasks.items():
        measure(rows, task, f"ResNet-{depth}", "nearest", None, None)
        measure(rows, task, f"ResNet-{depth}", "in turn", None, Gptq(SAMPLES))
    for seed in range(options.seeds):
        learn = Reconstruct(samples=SAMPLES, steps=options.steps, seed=seed)
        for depth, task in tasks.items():
            measure(rows, task, f"ResNet-{depth}", "learned", seed, learn)
    order = sorted(rows.rows, key=lambda one: (one["model"], one["bits"], one["rounding"]))
    print(table(order, COLUMNS, _cell))


class Rows:
    """The rows so far, on disk after each."""

    def __init__(self, rows: list[Row], path: Path | None) -> None:
        self.rows, self.path = rows, path

    def has(self, **wanted: Any) -> bool:
        return any(all(row.get(key) == wanted[key] for key in wanted) for row in self.rows)

    def add(self, row: Row) -> None:
        self.rows.append(row)
        print(row, file=sys.stderr)
        if self.path:
            self.path.write_text(json.dumps({"rows": self.rows}, indent=1))

    def add_all(self, model: str, make: Any) -> None:
        if not any(row["model"] == model and row["rounding"] == "peer" for row in self.rows):
            for row in make():
                self.add(row)


def measure(
    rows: Rows, task: Task, model: str, name: str, seed: int | None, refine: Pass | None
) -> None:
    """Every width with one rounding: its name and seed, and the pass after `Quantize`."""
    network = capture(task.model, task.example)
    baseline = scores_of(network, task)[0]
    about: Row = {"model": model, "bits": "float", "rounding": "", "seed": None}
    if not rows.has(**about):
        rows.add(about | figures(network, task, baseline) | {"seconds": 0})
    for weights, activations in WIDTHS:
        about |= {"bits": f"W{weights}A{activations}", "rounding": name, "seed": seed}
        if rows.has(**about):
            continue
        begin = time.monotonic()
        made = Quantize(weights, activations, samples=SAMPLES)(network, task)
        if refine is not None:
            made = refine(made, task)
        seconds = time.monotonic() - begin
        rows.add(about | figures(made, task, baseline) | {"seconds": round(seconds)})


def figures(network: Network, task: Task, baseline: Array) -> Row:
    """Of the exported file: its accuracy, how far that is below `baseline`, and its bytes."""
    found, size = scores_of(network, task)
    lost = drop(baseline, found, 0.95)
    return {
        "accuracy": float(found.mean()), "drop": lost.drop, "bound": lost.bound,
        "file_bytes": size,
    }  # fmt: skip


def peers(python: str, depth: int) -> list[Row]:
    """The int8 files of ONNX Runtime's quantizer, NNCF and ExecuTorch."""
    script = require(data_folder() / "peers/int8_peers.py").resolve()
    command = [python, str(script), f"resnet{depth}"]
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=script.parent, env=clean
    )
    found = [match for line in done.stdout.splitlines() if (match := PEER_LINE.match(line))]
    if not found:
        raise SystemExit(f"the peers' script gave no figures: {done.stderr.strip()[-300:]}")
    return [
        {
            "model": f"ResNet-{depth}", "bits": match[1].strip(), "rounding": "peer",
            "seed": None, "accuracy": float(match[2]), "file_bytes": int(match[3]),
        }
        for match in found
    ]  # fmt: skip


def _cell(column: str, value: Any) -> str:
    if column == "accuracy":
        return f"{100 * value:.2f}"
    return f"{value:+.2f}" if column in ("drop", "bound") else str(value)


if __name__ == "__main__":
    main()
