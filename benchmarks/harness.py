"""The benchmarks' harness: say how far a run is, judge a network by its file, print the rows."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from data_folder import data_folder
from networks import small_tasks

from penjing.contract import Array, Artifact, Session
from penjing.measure.parity import parity
from penjing.measure.scores import score
from penjing.network import Network
from penjing.runtimes.contract import Runtime
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.tasks.task import Task


def progress(name: str) -> Callable[[str, float], None]:
    """A line on stderr, written over every ten seconds."""
    last = [0.0]

    def say(line: str, share: float) -> None:
        if time.monotonic() - last[0] > 10 or share >= 1:
            last[0] = time.monotonic()
            print(f"\r{name}: {share:4.0%} {line}    ", end="", file=sys.stderr, flush=True)

    return say


def scores_of(network: Network, task: Task) -> tuple[Array, int]:
    """Right or wrong for each test image, by the exported file, and its bytes."""
    with tempfile.TemporaryDirectory() as folder:
        runtime = OnnxRuntime()
        file = runtime.lower(network, Path(folder) / "model.onnx")
        return score(runtime.load(file), task.test, task.metric), file.file_bytes


def agreement(network: Network, session: Session, task: Task) -> dict[str, Any]:
    """With the network on the test data; on the training data where its weights are random."""
    found = parity(network, session, task.test or task.train)
    return {"worst": found.max_difference, "same": found.same_decisions}


def units(runtime: Runtime, artifact: Artifact) -> dict[str, int]:
    """How many operators ran on which."""
    return dict(Counter(one.unit for one in runtime.placement(artifact)))


def table(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str], cell: Callable[[str, Any], str]
) -> str:
    """The rows in Markdown.

    Args:
        cell: what to print for a value, by its column; of a value that is missing, nothing is.
    """
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = ("" if row.get(one) is None else cell(one, row[one]) for one in columns)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(column: str, value: Any) -> str:
    """A value as a table of runtimes shows it, by its column."""
    if column in ("same", "kept", "accuracy"):
        return f"{100 * value:.2f}"
    if column == "worst":
        return f"{value:.2g}"
    if column in ("ratio", "latency_ms"):
        return f"{value:.3f}"
    if column == "points":
        return f"{value[0]:+.2f} +- {value[1]:.2f}"
    if column == "interval":
        return f"{value[0]:.3f} - {value[1]:.3f}"
    if column == "units":
        return ", ".join(f"{count} {unit}" for unit, count in value.items())
    return str(value)


def run_small(
    doc: str,
    rows_of: Callable[[Task], list[dict[str, Any]]],
    columns: Sequence[str],
    cell: Callable[[str, Any], str],
) -> list[dict[str, Any]]:
    """A benchmark's command line over the small networks: prints their rows, and returns them.

    Args:
        doc: the benchmark's own; its first line is the help's.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", default="", help="part of a model's name")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows: list[dict[str, Any]] = []
    for name, make in small_tasks(data_folder()).items():
        if options.only in name:
            try:
                rows += rows_of(make())
            except FileNotFoundError as error:
                print(f"skipped {name}: {error}")
    print(table(rows, columns, cell))
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=1))
    return rows
