"""The benchmarks' harness: say how far a run is, judge a network by its file, print the rows."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from penjing.contract import Array
from penjing.measure.scores import score
from penjing.network import Network
from penjing.runtimes.onnxruntime import OnnxRuntime
from penjing.task import Task


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
