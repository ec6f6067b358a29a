"""A duel at equal budget with Torch-Pruning: half of ResNet-20's MACs, two epochs, three seeds.

    PENJING_DATA=FOLDER python benchmarks/equal_budget.py [--json FILE] [--plot FILE.png]

Needs torch-pruning 1.6.1. JPEG-compressed CIFAR-10, the inner channels of every block. Ours: widths
allocated to a budget of MACs, layers solved anew from 512 images without labels, distilled tuning.
Theirs: group-norm pruning, global ranking, in 400 small steps as in its CIFAR examples, then the
same epochs of the same training, with the plain loss and with our distillation added. Nobody looks
at the test images before the end. With --json a run that was cut off goes on where it was.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_folder import data_folder
from harness import progress
from kept_without_tuning import accuracy
from networks import EXAMPLE
from torch import nn

from penjing.contract import Array
from penjing.measure.costs import costs
from penjing.measure.scores import drop
from penjing.network import Network, capture, find_axes
from penjing.passes import Compensate, PruneChannels
from penjing.passes.structure.channels.budget import Budget
from penjing.tasks.reference import find_task
from penjing.tasks.task import Task
from penjing.tune.options import TuneOptions
from penjing.tune.train import train

Row = dict[str, Any]
SHARE = 0.5
OURS, PLAIN, DISTILLED = "penjing", "Torch-Pruning", "Torch-Pruning + distillation"


def macs(network: Network) -> int:
    return sum(one.macs for one in costs(network))


def by_penjing(task: Task) -> Network:
    network = capture(task.model, task.example)
    skip = tuple(name for name in find_axes(network).free if not name.endswith(".conv1"))
    cut = PruneChannels(skip=skip, budget=Budget("macs", SHARE))(network, task)
    return Compensate()(cut, task)


def by_torch_pruning(task: Task, share: float = SHARE) -> Network:
    """Its inner channels pruned until that share of the MACs is left."""
    import torch_pruning

    model = copy.deepcopy(task.model)
    inner = {module.conv1 for name, module in model.named_modules() if name.count(".") == 1}
    layers = [one for one in model.modules() if isinstance(one, nn.Conv2d | nn.Linear)]
    pruner = torch_pruning.pruner.GroupNormPruner(
        model, task.example, importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.9, max_pruning_ratio=0.9, global_pruning=True, iterative_steps=400,
        ignored_layers=[one for one in layers if one not in inner],
    )  # fmt: skip
    count, one = torch_pruning.utils.count_ops_and_params, task.example[:1]
    near = 1.03 * share * count(model, one)[0]  # which is cheap; our own count decides
    most = share * macs(capture(task.model, task.example))
    for _ in range(400):
        if count(model, one)[0] <= near and macs(capture(model, task.example)) <= most:
            break
        pruner.step()
    else:
        raise SystemExit(f"Torch-Pruning can't reach {share:.0%} of the MACs")
    return capture(model, task.example)


CONTESTANTS: dict[str, tuple[Callable[[Task], Network], float]] = {
    OURS: (by_penjing, 0.9),
    PLAIN: (by_torch_pruning, 0.0),
    DISTILLED: (by_torch_pruning, 0.9),
}
"""Name to (how it cuts, share of distillation in the loss)."""


def run(name: str, task: Task, seed: int, epochs: float) -> tuple[Row, Array]:
    """One contestant with one seed: its row, and which test images it gets right."""
    cut, distill = CONTESTANTS[name]
    torch.manual_seed(seed)
    begin = time.monotonic()
    network = cut(task)
    before = accuracy(network, task)
    options = TuneOptions(epochs=epochs, distill=distill, seed=seed)
    tuned, _ = train(network, task, options, progress(f"{name}, seed {seed}"))
    with torch.no_grad():
        hits = torch.cat([tuned(x).argmax(1) == y for x, y in task.test]).double().numpy()
    share = macs(network) / macs(capture(task.model, task.example))
    row = {
        "method": name, "seed": seed, "macs_share": round(share, 4),
        "accuracy_untuned": before / 100, "accuracy": float(hits.mean()),
        "seconds": round(time.monotonic() - begin, 1),
    }  # fmt: skip
    return row, hits


def table(rows: list[Row], hits: dict[str, list[Array]], original: float) -> str:
    lines = [
        f"| original {100 * original:.2f} | MACs | untuned | accuracy by seed | mean |"
        " penjing is better by | 95 % bound |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == name]
        seeds = ", ".join(f"{100 * row['accuracy']:.2f}" for row in mine)
        mean = 100 * float(np.mean([row["accuracy"] for row in mine]))
        duel = ""
        if name != OURS and len(hits[name]) == len(hits[OURS]):
            # "drop" from ours to theirs; the bound of its negative is the least that we lead by
            ours, theirs = (np.mean(hits[one], axis=0) for one in (OURS, name))
            lead, back = drop(ours, theirs), drop(theirs, ours)
            duel = f"{lead.drop:+.2f} | at least {-back.bound:+.2f}"
        macs_share = max(row["macs_share"] for row in mine)
        untuned = 100 * float(np.mean([row["accuracy_untuned"] for row in mine]))
        cells = (name, f"{macs_share:.3f}", f"{untuned:.2f}", seeds, f"{mean:.2f}", duel or " | ")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(rows: list[Row], original: float, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), dpi=120, layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(row["method"] for row in rows))
    for place, name in enumerate(reversed(names)):
        found = [100 * row["accuracy"] for row in rows if row["method"] == name]
        axes.plot(found, [place] * len(found), "o", alpha=0.7)
    axes.axvline(100 * original, color="gray", linestyle=":", label="original")
    axes.set_yticks(range(len(names)), list(reversed(names)))
    axes.set_ylim(-0.5, len(names) - 0.5)
    axes.set_xlabel("test accuracy at half the MACs, %, a dot for each seed")
    axes.legend()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=list(CONTESTANTS), choices=list(CONTESTANTS))
    options = parser.parse_args()
    data_folder(needed_by=parser)
    task = find_task(EXAMPLE)
    record: Row = {"rows": [], "hits": {}}
    if options.json and options.json.exists():
        record = json.loads(options.json.read_text())
    record.setdefault("original", accuracy(capture(task.model, task.example), task) / 100)
    for seed in range(options.seeds):
        for name in options.only:
            if any(row["method"] == name and row["seed"] == seed for row in record["rows"]):
                continue
            row, hits = run(name, task, seed, options.epochs)
            record["rows"].append(row)
            wrong = np.flatnonzero(hits == 0).tolist()
            record["hits"].setdefault(name, []).append({"of": len(hits), "wrong": wrong})
            print(f"\r{row}", file=sys.stderr)
            if options.json:
                partial = options.json.with_suffix(".partial")
                partial.write_text(json.dumps(record))
                partial.replace(options.json)
    known = {name: [_hits(one) for one in every] for name, every in record["hits"].items()}
    print(table(record["rows"], known, record["original"]))
    if options.plot:
        plot(record["rows"], record["original"], options.plot)


def _hits(one: Row) -> Array:
    found = np.ones(one["of"])
    found[one["wrong"]] = 0.0
    return found


if __name__ == "__main__":
    main()
