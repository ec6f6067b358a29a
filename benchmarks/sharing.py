"""How few bytes two classic networks need for MNIST: weights removed, shared and tuned.

    PENJING_DATA=FOLDER python benchmarks/sharing.py [--only PART] [--json FILE]

LeNet-300-100 and LeNet-5 (Caffe's, 431,080 parameters) are trained here on MNIST, with images
shifted by up to one pixel. Weights are removed in stages by optimal brain surgeon, with tuning
after each. From some stage on, each result is shared, tuned again and printed: error, nonzero
weights, distinct values, and an estimate of the bytes by entropy: codes, codebooks, and everything
else in 16 bits. The last table has the smallest network at or below 1.9 % and 1.0 % error. No coded
file is written.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_folder import data_folder, require
from harness import progress
from kept_without_tuning import accuracy
from torch import Tensor, nn
from torch.nn import functional

from penjing.measure.coding import coded_size
from penjing.network import capture
from penjing.passes import Share, Sparsify, Tune
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task
from penjing.tune.options import TuneOptions

Row = dict[str, Any]
LIMITS = (1.9, 1.0)
"""Errors in percent at which the published networks are compared."""


@dataclass(frozen=True)
class Plan:
    """The stages of one network.

    Attributes:
        sparsities: after each of them the network is tuned.
        shared_from: the first stage that is shared.
        values: of each codebook, zero included.
        train, tune: epochs before the first stage, and of each tuning.
    """

    sparsities: tuple[float, ...]
    shared_from: float
    values: int
    train: int
    tune: int


class Shifted:
    """MNIST's batches, each image shifted at random by up to one pixel."""

    def __init__(self, batches: Arrays) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self.batches:
            padded = functional.pad(images, (1, 1, 1, 1), value=float(images.min()))
            rows, columns = torch.randint(0, 3, (2, len(images), 1)) + torch.arange(28)
            number = torch.arange(len(images))[:, None, None]
            yield padded[number, 0, rows[:, :, None], columns[:, None, :]][:, None], labels


def lenet_300_100() -> nn.Module:
    """LeNet-300-100 (LeCun et al., 1998), 266,610 parameters."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(),
        nn.Linear(100, 10),
    )  # fmt: skip


def lenet_5() -> nn.Module:
    """LeNet-5 as Caffe has it: no padding, 20 and 50 maps, 500 hidden units."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
    )  # fmt: skip


NETWORKS = {
    "LeNet-300-100": (
        lenet_300_100, Plan((0.8, 0.9, 0.95, 0.97, 0.98, 0.985, 0.988), 0.97, 12, 20, 8)
    ),
    "LeNet-5": (lenet_5, Plan((0.9, 0.95, 0.98, 0.985, 0.99, 0.992, 0.994), 0.985, 12, 10, 4)),
}  # fmt: skip


def trained(make: Any, name: str, folder: Path, epochs: int) -> tuple[Task, Arrays]:
    """The trained network with shifted images to train on, and the same images unshifted."""
    with np.load(require(folder / "data/mnist.npz")) as kept:
        options: dict[str, Any] = {"mean": (0.1307,), "std": (0.3081,), "batch_size": 128}
        still = Arrays(kept["train_x"][:, None], kept["train_y"], shuffle=True, **options)
        test = Arrays(kept["test_x"][:, None], kept["test_y"], **options)
    train = Shifted(still)
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, epochs * len(train))
    for _ in range(epochs):
        for x, y in train:
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            rates.step()
    return Task(model.eval(), next(iter(test))[0][:2], train, test, name=name), still


def rows_of(task: Task, still: Arrays, plan: Plan, most: int) -> Iterator[Row]:
    network = capture(task.model, task.example)
    numbers = sum(one.numel() for one in network.parameters())
    error = round(100 - accuracy(network, task), 2)
    yield {"model": task.name, "sparsity": 0.0, "error": error, "bytes": 4 * numbers}
    tune = Tune(
        TuneOptions(epochs=plan.tune, optimizer="adamw", lr=2e-3, weight_decay=1e-4, distill=0.9,
                    device="cpu", precision="float32")
    )  # fmt: skip
    unshifted = dataclasses.replace(task, train=still)
    for sparsity in plan.sparsities[:most]:
        say = progress(f"{task.name} {sparsity:.1%}")
        network = Sparsify(sparsity, "obs", ends=1, steps=2)(network, unshifted, say)
        network = tune(network, task, say)
        if sparsity < plan.shared_from:
            continue
        shared = tune(Share(plan.values)(network, unshifted), task, say)
        size = coded_size(shared, bits=16)
        yield {
            "model": task.name, "sparsity": sparsity,
            "error_sparse": round(100 - accuracy(network, task), 2),
            "error": round(100 - accuracy(shared, task), 2),
            "nonzero": sum(one.nonzero for one in size.tensors),
            "values": max(one.values for one in size.tensors),
            "bytes": size.estimated_bytes, "ratio": round(4 * numbers / size.estimated_bytes, 1),
        }  # fmt: skip


def table(rows: list[Row], columns: list[str]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(str(row.get(one, "")) for one in columns) + " |" for row in rows]
    return "\n".join(lines)


def best(rows: list[Row]) -> list[Row]:
    """For each network and limit, the smallest one within it."""
    found = []
    for model in dict.fromkeys(row["model"] for row in rows):
        for limit in LIMITS:
            within = [row for row in rows if row["model"] == model and row["error"] <= limit]
            if within:
                found.append({"limit": limit, **min(within, key=lambda row: int(row["bytes"]))})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", default="", help="part of a model's name")
    parser.add_argument("--stages", type=int, default=99, help="at most, to try it in miniature")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: list[Row] = []
    for name, (make, plan) in NETWORKS.items():
        if options.only in name:
            task, still = trained(make, name, data_folder(), plan.train)
            for row in rows_of(task, still, plan, options.stages):
                rows.append(row)
                print(row, flush=True)
    columns = ["sparsity", "error_sparse", "error", "nonzero", "values", "bytes", "ratio"]
    print(table(rows, ["model", *columns]))
    print(table(best(rows), ["model", "limit", *columns]))
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "best": best(rows)}, indent=1))


if __name__ == "__main__":
    main()
