"""Quantization-aware training: ResNet-20 with weights and values of four bits, two epochs.

    PENJING_DATA=FOLDER python benchmarks/tune_few_bits.py [--json FILE] [--bits 4 4] [--epochs 2]

JPEG-compressed CIFAR-10. Rounded to nearest; rounding learned from 1,024 images without labels;
then tuned, scales and all, distilled from the float network. Accuracy on the 10,000 test images,
which nobody sees before, of the network as it is simulated and of the file in ONNX Runtime; `drop`
is the file's, paired with the float network, and its 95 % bound. With --json a run that was cut
off goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import progress, scores_of, table
from networks import EXAMPLE

from penjing.contract import Array
from penjing.measure.scores import drop
from penjing.network import Network, capture, restore, save
from penjing.passes import Pass, Quantize, Reconstruct, Tune
from penjing.tasks.reference import find_task
from penjing.tasks.task import Task
from penjing.tune.options import TuneOptions

Row = dict[str, Any]
COLUMNS = ("step", "simulated", "file", "drop", "bound", "file_bytes", "seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--bits", type=int, nargs=2, default=[4, 4])
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--optimizer", default="adamw")
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = find_task(EXAMPLE)
    training = TuneOptions(
        epochs=options.epochs, optimizer=options.optimizer, lr=options.lr, seed=options.seed
    )
    weights, activations = options.bits
    steps: list[tuple[str, Pass]] = [
        ("rounded to nearest", Quantize(weights, activations, samples=1024)),
        ("rounding learned", Reconstruct(steps=300, seed=options.seed)),
        ("tuned", Tune(training)),
    ]
    network = capture(task.model, task.example, source=task.source)
    rows, baseline = [], hits(network, task)
    rows.append({"step": "float", "simulated": float(baseline.mean())})
    for name, one in steps:
        begin = time.monotonic()
        place = options.json and options.json.with_suffix("") / name.replace(" ", "-")
        if place and (place / "network.json").exists():
            network = restore(place, task.model, task.example)
        else:
            network = one(network, task, progress(name))
            if place:
                save(network, place)
        rows.append(row_of(name, network, task, baseline) | {"seconds": time.monotonic() - begin})
        print(rows[-1], file=sys.stderr)
    print(table(rows, COLUMNS, _cell))
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=1))


def row_of(name: str, network: Network, task: Task, baseline: Array) -> Row:
    found, size = scores_of(network, task)
    lost = drop(baseline, found, 0.95)
    return {
        "step": name, "simulated": float(hits(network, task).mean()), "file": float(found.mean()),
        "drop": lost.drop, "bound": lost.bound, "file_bytes": size,
    }  # fmt: skip


def hits(network: Network, task: Task) -> Array:
    """Whether each test image is recognised, in the network's own arithmetic."""
    with torch.no_grad():
        found = [(network(x).argmax(1) == y).double().numpy() for x, y in task.test]
    return np.concatenate(found)


def _cell(column: str, value: Any) -> str:
    if column in ("simulated", "file"):
        return f"{100 * value:.2f}"
    if column in ("drop", "bound"):
        return f"{value:+.2f}"
    return f"{value:.0f}" if column == "seconds" else str(value)


if __name__ == "__main__":
    main()
