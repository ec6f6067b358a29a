"""Bits chosen layer by layer beside the same bits for all, in the same bytes, nothing trained.

    PENJING_DATA=<folder with data/ and models/> python benchmarks/mixed_precision.py [--json FILE]
        [--models 20] [--bits 4 3] [--loss kl] [--refine STEPS]

For each width: `Quantize(weights=bits)`, first and last layer with eight, and `MixedPrecision` in
at most as many bytes of codes and scales, both rounded to nearest (or, with --refine, learned by
`Reconstruct`), values in eight bits. Whole files differ by what unpacking several widths takes.
Accuracy is of the exported file in ONNX Runtime, on the 1,468 lossless test images; `better by` is
paired, over uniform, with its 95 % bound below.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from data_folder import data_folder
from harness import scores_of, table
from networks import cifar_task

from penjing.contract import Array
from penjing.measure.scores import drop
from penjing.network import Network, capture
from penjing.passes import MixedPrecision, Quantize, Reconstruct
from penjing.tasks.task import Task

Row = dict[str, Any]
SAMPLES = 1024
COLUMNS = (
    "model", "bytes of", "bits", "accuracy", "drop", "bound", "better by", "at least",
    "file_bytes", "seconds",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--models", type=int, nargs="*", default=[20])
    parser.add_argument("--bits", type=int, nargs="*", default=[4, 3])
    parser.add_argument("--loss", choices=["kl", "squares"], default="kl")
    parser.add_argument("--refine", type=int, default=0, help="steps for each block; 0 is nearest")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = data_folder()
    rows: list[Row] = []
    for depth in options.models:
        task = cifar_task(depth, folder)
        network = capture(task.model, task.example)
        baseline, size = scores_of(network, task)
        about: Row = {"model": task.name, "bytes of": "", "bits": "float"}
        about |= {"file_bytes": size, "seconds": 0}
        rows.append(about | judged(baseline, baseline, None))
        for bits in options.bits:
            for row in pair(network, task, bits, baseline, options):
                rows.append(row)
                print(row, file=sys.stderr, flush=True)
                if options.json:
                    options.json.write_text(json.dumps({"rows": rows}, indent=1))
    print(table(rows, COLUMNS, _cell))


def pair(network: Network, task: Task, bits: int, baseline: Array, options: Any) -> list[Row]:
    """The same bits for all, and bits for each layer."""
    passes = {
        f"uniform {bits}": Quantize(weights=bits, samples=SAMPLES),
        "mixed": MixedPrecision(uniform=bits, samples=SAMPLES, loss=options.loss),
    }
    rows, uniform = [], None
    for name, one in passes.items():
        begin = time.monotonic()
        plan = one.plan(network, task)
        print(plan, file=sys.stderr, flush=True)
        made = one.apply(network, plan, task)
        if options.refine:
            made = Reconstruct(samples=SAMPLES, steps=options.refine)(made, task)
        seconds = time.monotonic() - begin
        found, size = scores_of(made, task)
        kind = f"{name}, learned" if options.refine else name
        about: Row = {"model": task.name, "bytes of": f"W{bits}A8", "bits": kind}
        about |= {"file_bytes": size, "seconds": round(seconds)}
        rows.append(about | judged(found, baseline, uniform))
        uniform = found if uniform is None else uniform
    return rows


def judged(found: Array, baseline: Array, uniform: Array | None) -> Row:
    """The accuracy, how far it is below the baseline's, and how far above uniform's, if any."""
    lost = drop(baseline, found, 0.95)
    row: Row = {"accuracy": float(found.mean()), "drop": lost.drop, "bound": lost.bound}
    if uniform is not None:
        worse = drop(uniform, found, 0.95)
        row |= {"better by": -worse.drop, "at least": -worse.bound}
    return row


def _cell(column: str, value: Any) -> str:
    if column == "accuracy":
        return f"{100 * value:.2f}"
    return f"{value:+.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
