"""Our networks on Qualcomm's Hexagon NPUs, as its own library simulates them.

    PENJING_DATA=<folder with data/ and models/> python benchmarks/qnn.py [--json FILE]

Prints a Markdown table: operators by unit, how many decisions are those of the network that the
file was made from, accuracy. A simulator's time means nothing and isn't taken. Networks with random
weights are there for placement and parity.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from harness import table
from networks import small_tasks

from penjing.measure.parity import parity
from penjing.measure.scores import score
from penjing.network import capture
from penjing.passes import Quantize
from penjing.runtimes.onnx_providers import HEXAGONS, OnQnn
from penjing.task import Task

COLUMNS = ("model", "npu", "precision", "units", "worst", "same", "accuracy", "file_bytes")
SAMPLES = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", default="", help="part of a model's name")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows: list[dict[str, Any]] = []
    for name, make in small_tasks(Path(os.environ.get("PENJING_DATA", "."))).items():
        if options.only in name:
            try:
                rows += rows_of(make())
            except FileNotFoundError as error:
                print(f"skipped {name}: {error}")
    print(table(rows, COLUMNS, _cell))
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=1))


def rows_of(task: Task) -> list[dict[str, Any]]:
    """A row for each NPU, in int8 and in floats, which it computes in float16."""
    rows = []
    network = capture(task.model, task.example)
    for npu in HEXAGONS:
        runtime = OnQnn.of(npu)
        for precision in ("int8", "float16"):
            lowered = network
            if precision == "int8":
                lowered = Quantize(samples=SAMPLES, **runtime.demands)(network, task)
            with tempfile.TemporaryDirectory() as folder:
                floats = "float32" if precision == "int8" else precision
                file = runtime.lower(lowered, Path(folder) / f"model{runtime.ending}", floats)
                session, places = runtime.load(file), runtime.placement(file)
            found = parity(lowered, session, task.test, samples=256)
            rows.append(
                {
                    "model": task.name, "npu": npu, "precision": precision,
                    "units": dict(Counter(one.unit for one in places)),
                    "worst": found.max_difference, "same": found.same_decisions,
                    "accuracy": float(score(session, task.test, task.metric).mean()),
                    "file_bytes": file.file_bytes,
                }
            )  # fmt: skip
    return rows


def _cell(column: str, value: Any) -> str:
    if column in ("same", "accuracy"):
        return f"{100 * value:.2f}"
    if column == "units":
        return ", ".join(f"{count} {unit}" for unit, count in value.items())
    return f"{value:.2g}" if column == "worst" else str(value)


if __name__ == "__main__":
    main()
