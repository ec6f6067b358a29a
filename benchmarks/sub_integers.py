"""One bit and three values: what binary and ternary networks keep, and what their files weigh.

    PENJING_DATA=FOLDER python benchmarks/sub_integers.py [--json FILE] [--networks FOLDER]

Binary networks on MNIST, trained here from nothing: an MLP of one bit throughout, whose decisions
on packed bits in NumPy are compared with the graph's on every test image, and a small CNN with
XNOR-Net's scaling whose first and last layer have eight bits. Ternary: ResNet-20 on JPEG-compressed
CIFAR-10, distilled from its float self. Accuracy is that of the ONNX file in ONNX Runtime; bytes
are those of the whole file. With --json a run that was cut off goes on where it was; with
--networks trained networks are kept and taken up again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_folder import data_folder
from harness import progress
from networks import EXAMPLE
from torch import Tensor, nn

from penjing.measure.scores import drop
from penjing.network import Network, capture, restore, save
from penjing.network.analysis.activation_cache import ActivationCache
from penjing.network.graph.layers import LAYERS
from penjing.network.lowering.packed_bits import packed_bits
from penjing.passes import Binarize, Ternarize, Tune
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.tasks.data import Arrays
from penjing.tasks.reference import find_task
from penjing.tasks.task import Task
from penjing.tune.options import TuneOptions

Row = dict[str, Any]
MLP, CNN, TERNARY = "MLP, 1 bit", "CNN, XNOR-Net", "ResNet-20, ternary"


class Mlp(nn.Module):
    """784-1024-1024-1024-10 with a batch norm behind each layer; its inputs are pixels - 1/2."""

    def __init__(self) -> None:
        super().__init__()
        widths = (784, 1024, 1024, 1024, 10)
        pairs = list(itertools.pairwise(widths))
        self.layers = nn.ModuleList(nn.Linear(*one, bias=False) for one in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _, width in pairs)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1) - 0.5
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = norm(layer(x))
        return x


class Cnn(nn.Module):
    """Three convolutions, of which the last two become binary, with a batch norm before each."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 32, 5, padding=2, bias=False), nn.BatchNorm2d(32)
        self.conv2, self.bn2 = nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)
        self.conv3, self.bn3 = nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)
        self.linear = nn.Linear(64 * 3 * 3, 10)

    def forward(self, x: Tensor) -> Tensor:
        pool = nn.functional.max_pool2d
        x = self.bn1(pool(self.conv1(x), 2))
        x = self.bn2(pool(self.conv2(x), 2))
        x = self.bn3(pool(self.conv3(x), 2)).relu()
        found: Tensor = self.linear(x.flatten(1))
        return found


def mnist(model: nn.Module, folder: Path, augment: str | None) -> Task:
    with np.load(folder / "data" / "mnist.npz") as file:
        data = dict(file)
    train = Arrays(
        data["train_x"][:, None], data["train_y"], batch_size=256, shuffle=True, augment=augment
    )
    test = Arrays(data["test_x"][:, None], data["test_y"])
    return Task(model.eval(), next(iter(test))[0][:2], train, test)


def mlp(folder: Path) -> Task:
    torch.manual_seed(0)
    return mnist(Mlp(), folder, None)


def cnn(folder: Path) -> Task:
    torch.manual_seed(0)
    return mnist(Cnn(), folder, None)


def resnet20(folder: Path) -> Task:
    return find_task(EXAMPLE)


ADAM = TuneOptions(optimizer="adamw", weight_decay=0.0, distill=0.0)
Stage = tuple[Any, TuneOptions]
CONTESTANTS: dict[str, tuple[Callable[[Path], Task], tuple[Stage, ...]]] = {
    MLP: (mlp, ((Binarize(ends=1), replace(ADAM, epochs=16, lr=3e-3)),)),
    CNN: (
        cnn,
        (
            (Binarize(weights=False), replace(ADAM, epochs=2, lr=3e-3)),
            (Binarize(), replace(ADAM, epochs=4, lr=3e-3)),
        ),
    ),
    TERNARY: (
        resnet20,
        ((Ternarize(), TuneOptions(epochs=2, lr=0.05, weight_decay=0.0, distill=0.9)),),
    ),
}
"""Name to (task, stages); a stage is a pass and the training after it."""


def trained(name: str, task: Task, folder: Path | None) -> tuple[Network, float]:
    """The network after all stages, and the seconds that its training took."""
    place = folder and folder / name.replace(", ", "-").replace(" ", "-")
    if place and (place / "seconds.json").exists():
        network = restore(place, task.model, task.example)
        return network, float(json.loads((place / "seconds.json").read_text()))
    begin = time.monotonic()
    network = capture(task.model, task.example)
    for number, (step, options) in enumerate(CONTESTANTS[name][1], start=1):
        network = step(network, task)
        network = Tune(options)(network, task, progress(f"{name}, stage {number}"))
    seconds = time.monotonic() - begin
    if place:
        save(network, place)
        (place / "seconds.json").write_text(json.dumps(seconds))
    return network, seconds


def run(name: str, folder: Path, networks: Path | None) -> Row:
    task = CONTESTANTS[name][0](folder)
    weights = sum(one.numel() for one in task.model.parameters() if one.dim() > 1)
    network, seconds = trained(name, task, networks)
    with torch.no_grad():
        graph = torch.cat([network(x).argmax(1) == y for x, y in task.test]).double().numpy()
    with tempfile.TemporaryDirectory() as place:
        artifact = OnnxRuntime().lower(network, Path(place) / "model.onnx")
        session = OnnxRuntime().load(artifact)
        pairs = [(session.run(x.numpy()), y.numpy()) for x, y in task.test]
    hits = np.concatenate([(scores.argmax(1) == y) for scores, y in pairs]).astype(float)
    row = {
        "network": name, "accuracy_file": float(hits.mean()), "accuracy_graph": float(graph.mean()),
        "weights": weights, "fp32_bytes": 4 * weights, "file_bytes": artifact.file_bytes,
        "seconds": round(seconds, 1),
    }  # fmt: skip
    if name == TERNARY:
        original = capture(task.model, task.example)
        with torch.no_grad():
            before = torch.cat([original(x).argmax(1) == y for x, y in task.test]).double().numpy()
        found = drop(before, hits)
        row |= {"accuracy_float": float(before.mean()), "drop": found.drop, "bound": found.bound}
    if name == MLP:
        row |= on_bits(network, task)
    return row


def on_bits(network: Network, task: Task) -> Row:
    """What the packed network does on every test image, against the graph."""
    packed = packed_bits(network)
    same, equal_sums, count, right = 0, True, 0, 0
    layers = [node for node in network.calls() if node.target in LAYERS]
    for x, y in task.test:
        with torch.no_grad():
            scores = network(x).numpy()
        run = ActivationCache(network, [x])
        sums = [run.value(node)[0].numpy() for node in layers]
        found = packed.sums((x.flatten(1) - 0.5).numpy())
        mine = packed.run((x.flatten(1) - 0.5).numpy())
        turned = zip(found[:-1], sums[:-1], strict=True)  # but for rows whose signs are turned
        equal_sums &= all(np.array_equal(np.abs(one), np.abs(other)) for one, other in turned)
        equal_sums &= np.array_equal(found[-1], sums[-1])
        same += int((mine.argmax(1) == scores.argmax(1)).sum())
        right += int((mine.argmax(1) == y.numpy()).sum())
        count += len(y)
    return {
        "packed_same_decisions": f"{same} of {count}", "packed_sums_equal": bool(equal_sums),
        "packed_accuracy": right / count, "packed_weight_bytes": packed.weight_bytes,
        "packed_bytes": packed.bytes,
    }  # fmt: skip


def table(rows: list[Row]) -> str:
    lines = [
        "| network | float | file in ONNX Runtime | graph | weights x 4 bytes | file, bytes | times"
        " smaller | training, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        before = f"{100 * row['accuracy_float']:.2f}" if "accuracy_float" in row else ""
        cells = (
            row["network"], before, f"{100 * row['accuracy_file']:.2f}",
            f"{100 * row['accuracy_graph']:.2f}", f"{row['fp32_bytes']}", f"{row['file_bytes']}",
            f"{row['fp32_bytes'] / row['file_bytes']:.1f}", f"{row['seconds']:.0f}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    for row in rows:
        if "drop" in row:
            lines += [
                "",
                f"{row['network']}: drop {row['drop']:.2f} points, 95 % bound {row['bound']:.2f}.",
            ]
        if "packed_bytes" in row:
            sums = "equal" if row["packed_sums_equal"] else "NOT equal"
            lines += [
                "",
                f"{row['network']} on packed bits in NumPy: {row['packed_same_decisions']} "
                f"decisions as the graph's, sums {sums}, accuracy "
                f"{100 * row['packed_accuracy']:.2f}; weights {row['packed_weight_bytes']} bytes, "
                f"with thresholds and scales {row['packed_bytes']}.",
            ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--networks", type=Path)
    parser.add_argument("--only", nargs="*", default=list(CONTESTANTS), choices=list(CONTESTANTS))
    options = parser.parse_args()
    folder = data_folder(needed_by=parser)
    rows: list[Row] = []
    if options.json and options.json.exists():
        rows = json.loads(options.json.read_text())
    for name in options.only:
        if any(row["network"] == name for row in rows):
            continue
        rows.append(run(name, folder, options.networks))
        print(f"\r{rows[-1]}", file=sys.stderr, flush=True)
        if options.json:
            partial = options.json.with_suffix(".partial")
            partial.write_text(json.dumps(rows, indent=1))
            partial.replace(options.json)
    print(table(rows))


if __name__ == "__main__":
    main()
