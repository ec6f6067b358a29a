"""Attention and activations of a small vision transformer, cut apart: time and accuracy of each.

    PENJING_DATA=FOLDER python benchmarks/vit_blocks.py [--epochs 4] [--keep FILE]

The transformer is trained here, on the JPEG-compressed CIFAR-10 images at 32 x 32, for a few
minutes: it is far from what longer training gives, so only differences count. Each row cuts one
attention, one activation (the two layers around it become one matrix), or one MLP, and solves the
layers again by least squares; nothing is trained after a cut. The last rows are what Drop chooses.
Times are of ONNX Runtime files in fp32, batch 1, one thread, relative to the whole network's.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from data_folder import data_folder
from depth import in_runtime
from harness import scores_of, table
from networks import Encoder, jpeg_task
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from penjing.contract import Array
from penjing.measure.costs import costs
from penjing.measure.scores import drop
from penjing.network import Network, capture
from penjing.network.analysis.blocks import find_blocks
from penjing.passes import Compensate, Drop
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task

Row = dict[str, Any]
SOLVE = Compensate(samples=512, rows=20_000)


class SmallViT(nn.Module):
    """Patches of 4 x 4, six blocks of width 64 with two heads, the mean over all patches."""

    def __init__(self, width: int = 64, depth: int = 6) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.position = nn.Parameter(0.02 * torch.randn(1, 64, width))
        self.blocks = nn.Sequential(*(Encoder(width, 2) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.position
        found: Tensor = self.head(self.norm(self.blocks(x)).mean(1))
        return found


def trained(task: Task, epochs: int) -> nn.Module:
    """A transformer after some epochs of AdamW with one cycle."""
    torch.manual_seed(0)
    model = SmallViT().train()
    assert isinstance(task.train, Arrays)
    steps = epochs * -(-task.train.samples // task.train.batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps, pct_start=0.2)
    begin = time.monotonic()
    for epoch in range(epochs):
        for x, y in task.train:
            with torch.autocast("cpu", torch.bfloat16):
                loss = functional.cross_entropy(model(x), y, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            cycle.step()
        minutes = (time.monotonic() - begin) / 60
        print(f"epoch {epoch + 1}: {minutes:.1f} minutes", file=sys.stderr, flush=True)
    return model.eval()


def rows_of(task: Task, seconds: float) -> Iterator[Row]:
    """The whole network, then a row for each choice."""
    network = capture(task.model, task.example)
    whole, _ = scores_of(network, task)
    choices: dict[str, Drop] = {
        block.name: Drop(names=(block.name,), samples=512)
        for block in find_blocks(network)
        if block.kind in ("branch", "activation")
    }
    for count in (2, 4, 6):
        choices[f"{count} blocks, by loss"] = Drop(count, samples=1024)
    solved: dict[str, Network] = {}
    names: dict[str, str] = {}
    for name, step in choices.items():
        cut = step(network, task)
        solved[name] = SOLVE(cut, task)
        names[name] = cut.history[-1].summary.partition(": ")[2]
        print(f"{name}: {names[name]}", file=sys.stderr, flush=True)
    files = {"whole": (network, "float32")} | {
        name: (found, "float32") for name, found in solved.items()
    }
    times = in_runtime(task, "onnxruntime", files, "whole", seconds)
    yield row("whole", network, network, whole, whole) | {"time": 1.0}
    for name, found in solved.items():
        scores, _ = scores_of(found, task)
        timed = times[name]
        yield row(name, found, network, scores, whole) | {
            "time": timed.ratio, "low": timed.ratio_low, "high": timed.ratio_high,
            "gone": names[name],
        }  # fmt: skip


def row(name: str, found: Network, network: Network, scores: Array, whole: Array) -> Row:
    macs = [sum(cost.macs for cost in costs(part)) for part in (found, network)]
    lost = drop(whole, scores)
    return {
        "cut": name, "MACs left": macs[0] / macs[1], "accuracy": 100 * scores.mean(),
        "points lost": lost.drop, "bound": lost.bound,
    }  # fmt: skip


def cell(column: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.2f}" if column in ("accuracy", "points lost", "bound") else f"{value:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=30.0, help="of timing")
    parser.add_argument("--keep", type=Path, help="the trained weights, written or read again")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    data = jpeg_task(20, data_folder())
    assert isinstance(data.train, Arrays)
    data.train.batch_size = 128
    if options.keep and options.keep.exists():
        model: nn.Module = SmallViT().eval()
        model.load_state_dict(load_file(options.keep))
    else:
        model = trained(data, options.epochs)
        if options.keep:
            save_file(model.state_dict(), options.keep)
    task = Task(model, data.example, data.train, data.test, name="small ViT")
    torch.set_num_threads(1)
    rows = list(rows_of(task, options.seconds))
    print(table(rows, list(dict.fromkeys(key for row in rows for key in row)), cell))
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=1, default=float))


if __name__ == "__main__":
    main()
