"""Our networks on Qualcomm's Hexagon NPUs, as its own library simulates them.

    PENJING_DATA=<folder with data/ and models/> python benchmarks/qnn.py [--json FILE]

Prints a Markdown table: operators by unit, how many decisions are those of the network that the
file was made from, accuracy. A simulator's time means nothing and isn't taken. Networks with random
weights are there for placement and parity.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from harness import cell, run_small

from penjing.measure.parity import parity
from penjing.measure.scores import score
from penjing.network import capture
from penjing.passes import Quantize
from penjing.runtimes.onnx.providers import HEXAGONS, OnQnn
from penjing.tasks.task import Task

COLUMNS = ("model", "npu", "precision", "units", "worst", "same", "accuracy", "file_bytes")
SAMPLES = 512


def rows_of(task: Task) -> list[dict[str, Any]]:
    """A row for each NPU, in int8 and in floats, which it computes in float16."""
    rows = []
    network = capture(task.model, task.example)
    for npu in HEXAGONS:
        runtime = OnQnn.of(npu)
        for precision in ("int8", "float16"):
            lowered = network
            if precision == "int8":
                lowered = Quantize(samples=SAMPLES, **runtime.constraints)(network, task)
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


if __name__ == "__main__":
    run_small(__doc__, rows_of, COLUMNS, cell)
