"""This machine's NVIDIA GPU beside its processor: the files in each precision, and tuning.

    PENJING_DATA=<folder with data/ and models/> python benchmarks/gpu.py [--json FILE]
        [--only NAME ...] [--skip-tuning] [--seconds 4]

Files: operators by the unit that ran them, how many decisions are those of the network that the
file was made from, accuracy, and at each batch size `ratio`, the latency over that of the float32
file on the processor in the same windows, with its 99 % interval; all cores, transfers to and from
the GPU included.
Tuning: ResNet-20 with half of its channels cut, one epoch of JPEG-compressed CIFAR-10, distilled;
accuracy on the 10,000 test images, of the file in ONNX Runtime. Networks with random weights are
there for placement, parity and time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_folder import data_folder
from harness import agreement, cell, progress, scores_of, table, units
from networks import EXAMPLE, cifar_task, mobilenet_task, vit_task

from penjing.contract import Session
from penjing.errors import InputError
from penjing.measure.latency import compare
from penjing.measure.scores import score
from penjing.network import capture
from penjing.passes import PruneChannels, Quantize, Tune
from penjing.runtimes.contract import Runtime
from penjing.runtimes.registry import ENTRIES, find_runtime
from penjing.targets import this_gpu
from penjing.tasks.reference import find_task
from penjing.tasks.task import Task
from penjing.tune.options import TuneOptions

Row = dict[str, Any]
GPUS = ("onnxruntime-cuda", "onnxruntime-tensorrt")
CPU = "onnxruntime"
BASELINE = f"{CPU} float32"
CORES = os.cpu_count() or 1
BATCHES = (1, 32)
SAMPLES = 256
COLUMNS = (
    "model", "file", "units", "worst", "same", "accuracy",
    *(f"{what} at {batch}" for batch in BATCHES for what in ("ms", "ratio", "interval")),
)  # fmt: skip
TUNINGS = (("cuda", "bfloat16"), ("cuda", "float32"), ("cpu", "float32"))
TUNING_COLUMNS = ("device", "precision", "seconds", "before", "after")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="*", default=[], help="models, by the begin of their name")
    parser.add_argument("--skip-tuning", action="store_true")
    parser.add_argument("--seconds", type=float, default=4.0, help="of timing, for each batch size")
    options = parser.parse_args()
    here = this_gpu()
    print(here.description if here else "no NVIDIA driver tells of a GPU here: the CPU alone")
    for name in GPUS:
        if absent := ENTRIES[name].absent:
            print(f"without {name}: {absent}")
    torch.manual_seed(0)
    data = data_folder()
    makers: dict[str, Callable[[], Task]] = {
        "ResNet-20": lambda: cifar_task(20, data),
        "MobileNetV2": mobilenet_task,
        "ViT-Tiny": vit_task,
    }
    rows: list[Row] = []
    for name, make in makers.items():
        if options.only and not any(name.startswith(one) for one in options.only):
            continue
        try:
            rows += rows_of(name, make(), options.seconds)
        except FileNotFoundError as error:
            print(f"skipped {name}: {error}")
    print(table(rows, COLUMNS, shown))
    tunings = [] if options.skip_tuning else tuned()
    print(table(tunings, TUNING_COLUMNS, shown))
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "tunings": tunings}, indent=1))


def rows_of(name: str, task: Task, seconds: float) -> list[Row]:
    """A row for each file on the processor, and on the GPU by each runtime that is here."""
    rows, sessions = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for runtime in (find_runtime(one) for one in (CPU, *GPUS) if not ENTRIES[one].absent):
            halves = ["float16"] if runtime.half_values else []
            for precision in ("float32", *halves, "int8"):
                label = f"{runtime.name} {precision}"
                path = Path(folder) / f"{label}{runtime.ending}"
                sessions[label], found = measured(runtime, precision, task, path)
                rows.append({"model": name, "file": label, **found})
                print(rows[-1], file=sys.stderr)
    for batch in BATCHES:
        inputs = np.random.default_rng(0).standard_normal((batch, *task.example.shape[1:]), "f4")
        times = compare(sessions, inputs, BASELINE, seconds)
        for row in rows:
            one = times[row["file"]]
            row |= {f"ms at {batch}": one.latency_ms, f"ratio at {batch}": one.ratio}
            row[f"interval at {batch}"] = [one.ratio_low, one.ratio_high, one.disturbed]
    print(*rows, sep="\n", file=sys.stderr)
    return rows


def measured(runtime: Runtime, precision: str, task: Task, path: Path) -> tuple[Session, Row]:
    """The network's file in a precision, loaded, and what it is."""
    network = capture(task.model, task.example)
    if precision == "int8":
        network = Quantize(samples=SAMPLES, **runtime.constraints)(network, task)
    floats = "float32" if precision == "int8" else precision
    file = runtime.lower(network, path, floats)
    session = runtime.load(file, CORES)
    row = agreement(network, session, task) | {"units": units(runtime, file)}
    if task.test:
        row["accuracy"] = float(score(session, task.test, task.metric).mean())
    return session, row


def shown(column: str, value: Any) -> str:
    """A value as the tables show it, by its column."""
    kind = column.partition(" at ")[0]
    if column in ("before", "after"):
        return cell("accuracy", value)
    if column == "seconds":
        return f"{value:.1f}"
    if kind == "interval":
        return cell(kind, value) + (", disturbed" if value[2] else "")
    return cell({"ms": "latency_ms"}.get(kind, kind), value)


def tuned() -> list[Row]:
    """A row for each device and precision that ResNet-20 is tuned in, from the same cut."""
    try:
        task = find_task(EXAMPLE)
    except InputError as error:
        print(f"skipped tuning: {error}")
        return []
    network = PruneChannels(0.5)(capture(task.model, task.example), task)
    before = float(scores_of(network, task)[0].mean())
    rows = []
    for device, precision in TUNINGS:
        if device == "cuda" and not torch.cuda.is_available():
            print("skipped tuning on CUDA: torch finds no such device here")
            continue
        options = TuneOptions(epochs=1.0, device=device, precision=precision)
        begin = time.monotonic()
        new = Tune(options)(network, task, progress(f"{device}, {precision}"))
        seconds = time.monotonic() - begin
        after = float(scores_of(new, task)[0].mean())
        row = {"device": device, "precision": precision, "seconds": seconds}
        rows.append(row | {"before": before, "after": after})
        print(rows[-1], file=sys.stderr)
    return rows


if __name__ == "__main__":
    main()
