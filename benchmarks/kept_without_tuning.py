"""What a network keeps when channels go and nothing is trained.

    PENJING_DATA=FOLDER python benchmarks/kept_without_tuning.py [--json FILE] [--plot FILE.png]

ResNet-20 and ResNet-56 on the lossless CIFAR-10 images, the inner channels of every block cut at
the same ratio; LeNet-300-100, trained here on MNIST, its nodes. Methods: cut (l1), cut and batch
norms recalibrated, merged (no data), compensated (512 images without labels). From half of the
channels on, also: a third of the blocks dropped, and so few channels of the others that the MACs
are the same, compensated. With --peer torch-pruning, which must be installed, its magnitude pruning
at the same ratio.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_folder import data_folder, require
from networks import cifar_task
from torch import nn
from torch.nn import functional

from penjing.network import Network, capture, find_axes
from penjing.passes import Compensate, Drop, Merge, PruneChannels
from penjing.tasks.data import Arrays, first
from penjing.tasks.task import Task
from penjing.tune.recalibrate import recalibrate

Row = dict[str, Any]
SAMPLES = 512


def lenet_task(folder: Path, epochs: int = 8) -> Task:
    """LeNet-300-100 (LeCun et al., 1998), trained on MNIST for some epochs."""
    with np.load(require(folder / "data/mnist.npz")) as kept:
        options: dict[str, Any] = {"mean": (0.1307,), "std": (0.3081,), "batch_size": 128}
        train = Arrays(kept["train_x"][:, None], kept["train_y"], shuffle=True, **options)
        test = Arrays(kept["test_x"][:, None], kept["test_y"], **options)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(),
        nn.Linear(100, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(epochs):
        for x, y in train:
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return Task(model.eval(), next(iter(test))[0][:2], train, test, name="LeNet-300-100")


def accuracy(network: nn.Module, task: Task) -> float:
    network.eval()
    with torch.no_grad():
        hits = [(network(x).argmax(1) == y).float() for x, y in task.test]
    return 100 * float(torch.cat(hits).mean())


def methods(
    network: Network, task: Task, skip: tuple[str, ...]
) -> dict[str, Callable[[float], Network | None]]:
    """By name, how the network is cut at a ratio; None where a method isn't for that."""
    resnet = "ResNet" in task.name

    def cut(ratio: float) -> Network:
        return PruneChannels(ratio, importance="l1", skip=skip)(network, task)

    @functools.cache
    def dropped() -> Network:
        return Drop(len(_blocks(network)) // 3, samples=SAMPLES)(network, task)

    def blocks_first(ratio: float) -> Network | None:
        """Without some blocks, pruned to the MACs of the whole network at that ratio."""
        if not resnet or ratio < 0.5:
            return None
        left = _blocks(dropped())
        rest = 1 - (1 - ratio) * len(_blocks(network)) / len(left)
        others = tuple(name for name in find_axes(dropped()).free if name not in left)
        pruned = PruneChannels(rest, importance="l1", skip=others)(dropped(), task)
        return Compensate(SAMPLES)(pruned, task)

    return {
        "cut": cut,
        "cut + recalibration": lambda ratio: (
            recalibrate(cut(ratio), first(task.train, SAMPLES)) if resnet else None
        ),
        "merge, no data": lambda ratio: Merge(ratio, skip=skip)(network, task),
        "compensate": lambda ratio: Compensate(SAMPLES)(cut(ratio), task),
        "a third of the blocks first": blocks_first,
    }


def _blocks(network: Network) -> list[str]:
    """The inner axes of a ResNet, one for each block; all blocks have the same MACs."""
    return [name for name in find_axes(network).free if name.endswith(".conv1")]


def rows_of(task: Task, ratios: list[float], inner: str, peer: bool) -> Iterator[Row]:
    network = capture(task.model, task.example)
    free = find_axes(network).free
    skip = tuple(name for name in free if inner not in name or not name.endswith(inner))
    whole = sum(one.numel() for one in network.parameters())
    yield {
        "model": task.name, "method": "original", "ratio": 0.0,
        "accuracy": accuracy(network, task), "params_left": 1.0,
    }  # fmt: skip
    known = methods(network, task, skip)
    for ratio in ratios:
        for name, method in known.items():
            found = method(ratio)
            if found is None:
                continue
            left = sum(one.numel() for one in found.parameters()) / whole
            yield {
                "model": task.name, "method": name, "ratio": ratio,
                "accuracy": accuracy(found, task), "params_left": round(left, 3),
            }  # fmt: skip
        if peer and "ResNet" in task.name:
            pruned = by_torch_pruning(task, ratio)
            left = sum(one.numel() for one in pruned.parameters()) / whole
            yield {
                "model": task.name, "method": "Torch-Pruning", "ratio": ratio,
                "accuracy": accuracy(pruned, task), "params_left": round(left, 3),
            }  # fmt: skip


def by_torch_pruning(task: Task, ratio: float) -> nn.Module:
    """Its magnitude pruning of the same layers at the same ratio."""
    import copy

    import torch_pruning

    model = copy.deepcopy(task.model)
    inner = {module.conv1 for name, module in model.named_modules() if name.count(".") == 1}
    ignored = [
        one
        for one in model.modules()
        if isinstance(one, nn.Conv2d | nn.Linear) and one not in inner
    ]
    pruner = torch_pruning.pruner.BasePruner(
        model, task.example, importance=torch_pruning.importance.GroupMagnitudeImportance(p=1),
        pruning_ratio=ratio, ignored_layers=ignored,
    )  # fmt: skip
    pruner.step()
    return model


def table(rows: list[Row]) -> str:
    """Models and methods down, ratios across."""
    lines = []
    for model in dict.fromkeys(row["model"] for row in rows):
        mine = [row for row in rows if row["model"] == model]
        ratios = sorted({row["ratio"] for row in mine if row["ratio"]})
        base = next(row["accuracy"] for row in mine if row["method"] == "original")
        lines += [f"| {model}, original {base:.2f} | " + " | ".join(f"{r:.0%}" for r in ratios)]
        lines[-1] += " |"
        lines.append("|---" * (len(ratios) + 1) + "|")
        for method in dict.fromkeys(row["method"] for row in mine if row["ratio"]):
            known = {row["ratio"]: row["accuracy"] for row in mine if row["method"] == method}
            cells = [f"{known[one]:.2f}" if one in known else "" for one in ratios]
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def plot(rows: list[Row], path: Path) -> None:
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["model"] for row in rows))
    known = list(dict.fromkeys(row["method"] for row in rows))  # a colour for each, everywhere
    figure = Figure(figsize=(5 * len(names), 4), dpi=120, layout="constrained")
    for axes, model in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        mine = [row for row in rows if row["model"] == model]
        base = mine[0]["accuracy"]
        for method in dict.fromkeys(row["method"] for row in mine[1:]):
            points = [(0.0, base)]
            points += [(row["ratio"], row["accuracy"]) for row in mine if row["method"] == method]
            axes.plot(
                *zip(*points, strict=True),
                marker="o",
                label=method,
                color=f"C{known.index(method)}",
            )
        axes.set_title(model)
        axes.set_xlabel("share of inner channels removed")
        axes.set_ylabel("accuracy, %")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--only", default="", help="part of a model's name")
    parser.add_argument("--peer", choices=["torch-pruning"])
    options = parser.parse_args()
    folder = data_folder()
    makers: dict[str, tuple[Callable[[], Task], list[float], str]] = {
        "ResNet-20": (lambda: cifar_task(20, folder), [0.1, 0.3, 0.5, 0.7], ".conv1"),
        "ResNet-56": (lambda: cifar_task(56, folder), [0.1, 0.3, 0.5, 0.7], ".conv1"),
        "LeNet-300-100": (lambda: lenet_task(folder), [0.5, 0.6, 0.7, 0.8], ""),
    }
    rows: list[Row] = []
    for name, (make, ratios, inner) in makers.items():
        if options.only in name:
            try:
                rows += rows_of(make(), ratios, inner, bool(options.peer))
            except FileNotFoundError as error:
                print(f"skipped {name}: {error}")
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=1))
    if options.plot and rows:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
