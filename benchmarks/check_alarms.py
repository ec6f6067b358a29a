"""False alarms of `penjing check`: a file against itself, over and over, on a machine that is busy.

    python benchmarks/check_alarms.py [--runs 50] [--seconds 5] [--slower] [--json FILE]

A process per core computes without end. Meanwhile the rule `max_time_ratio = 1.0` is judged for a
copy of the reference, as `penjing check` does it. Each time that it is broken is a false alarm.
`--slower` also judges a file that does half as much work again, which should be an alarm.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from harness import progress, table
from torch import nn

from penjing.processor import this_processor
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task
from penjing.tools.check.budgets import read_budgets
from penjing.tools.check.check import check
from penjing.tools.export import export_model

COLUMNS = ("file", "runs", "alarms", "measurements", "disturbed", "lowest", "highest")
BUSY = "while True: pass"


def write_file(folder: Path, layers: int) -> None:
    """Write a network of so many convolutions, with its record."""
    torch.manual_seed(0)
    convs = [module for _ in range(layers) for module in (nn.Conv2d(32, 32, 3, 1, 1), nn.ReLU())]
    model = nn.Sequential(nn.Conv2d(3, 32, 3, 1, 1), *convs, nn.Flatten(), nn.Linear(8192, 4))
    data = Arrays(torch.randn(64, 3, 16, 16), torch.arange(64) % 4)
    task = Task(model.eval(), data.x[:2], train=data, test=data)
    export_model(task, "onnxruntime", "float32", folder)


@contextlib.contextmanager
def load(processes: int) -> Iterator[None]:
    """Keep so many cores busy."""
    started = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def row_of(name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """How often the rule is broken for a file."""
    budgets = folder / "penjing.toml"
    budgets.write_text(
        f"reference = 'reference/model.onnx'\nseconds = {options.seconds}\n"
        f"[[file]]\npath = '{name}/model.onnx'\nmax_time_ratio = 1.0\n"
    )
    say, told = progress(name), []
    for run in range(options.runs):
        (verdict,) = check(read_budgets(budgets)).verdicts
        told.append({"alarm": not verdict.kept, **verdict.measured})
        say(f"{sum(one['alarm'] for one in told)} alarms", (run + 1) / options.runs)
    print(file=sys.stderr)
    ratios = [one["ratio"] for one in told]
    return {
        "file": name, "runs": options.runs, "alarms": sum(one["alarm"] for one in told),
        "measurements": sum(one["measurements"] for one in told),
        "disturbed": sum(one["disturbed"] for one in told),
        "lowest": min(ratios), "highest": max(ratios), "each": told,
    }  # fmt: skip


def cell(column: str, value: Any) -> str:
    """A value as the table shows it."""
    return f"{value:.3f}" if column in ("lowest", "highest") else str(value)


def main() -> None:
    """Print the table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--slower", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_file(folder / "reference", 6)
        shutil.copytree(folder / "reference", folder / "the same")
        if options.slower:
            write_file(folder / "slower", 9)
        with load(cores):
            rows = [row_of("the same", folder, options)]
            rows += [row_of("slower", folder, options)] if options.slower else []
    print(f"{this_processor()}, {cores} cores, all busy")
    print(table(rows, COLUMNS, cell))
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
