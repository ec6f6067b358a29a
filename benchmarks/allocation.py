"""A ratio for each axis against the same ratio for all, at the same budget, nothing trained.

    PENJING_DATA=FOLDER python benchmarks/allocation.py [--only ResNet-20] [--share 0.5] [--latency]
        [--json FILE]

ResNet-20 and ResNet-56 on the lossless CIFAR-10 images, cut to a share of the MACs and compensated
on 512 images without labels; the inner axes of the blocks only, and all axes. The last two rows
show what the allocation's loss owes to its logarithm and to its weights. With --latency, what a
table of ResNet-20's layers predicts, and the latency of the files, on one thread.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from data_folder import data_folder
from kept_without_tuning import SAMPLES, accuracy
from networks import cifar_task

from penjing.errors import InputError
from penjing.measure.cost_model import cost_in_macs
from penjing.network import Network, capture, find_axes
from penjing.passes import Compensate, PruneChannels
from penjing.passes.structure.channels import budget
from penjing.passes.structure.channels.budget import Budget
from penjing.passes.structure.channels.importance import Criterion
from penjing.targets import this_machine
from penjing.tasks.task import Task
from penjing.tools.latency_table import latency_table, require_predicted

Row = dict[str, Any]
CRITERIA: tuple[Criterion, ...] = ("l2", "fisher", "taylor")
LATENCY_SHARES = (0.8, 0.7, 0.6, 0.5)
MULTIPLE = 8


def without_logarithm(scores: torch.Tensor, counts: list[int], weights: int) -> list[float]:
    """Summed scores over their mean, for each weight."""
    best = scores.sort(descending=True).values.cumsum(0)
    return [weights * len(scores) * float(1 - best[n - 1] / best[-1]) for n in counts]


def without_weights(scores: torch.Tensor, counts: list[int], weights: int) -> list[float]:
    """As it is, but an axis of many weights counts like any other."""
    best = scores.sort(descending=True).values.cumsum(0)
    return [-len(scores) * math.log(float(best[n - 1] / best[-1])) for n in counts]


def cuts(network: Network, task: Task, share: float, skip: tuple[str, ...]) -> Iterator[Any]:
    """(method, cut network), all within the share of MACs."""
    whole = cost_in_macs(find_axes(network)).total({})
    ratio = 0.0
    for criterion in CRITERIA:
        while True:
            equal = PruneChannels(ratio, criterion, skip=skip)(network, task)
            if cost_in_macs(find_axes(equal)).total({}) <= share * whole:
                break
            ratio += 1 / 128
        yield f"equal, {criterion}", equal
    within = Budget("macs", share)
    for criterion in CRITERIA:
        prune = PruneChannels(importance=criterion, skip=skip, budget=within)
        yield f"allocated, {criterion}", prune(network, task)
    for lost in (without_logarithm, without_weights):
        with mock.patch.object(budget, "_lost", lost):
            cut = PruneChannels(skip=skip, budget=within)(network, task)
        yield f"allocated, l2, {lost.__name__.replace('_', ' ')}", cut


def skipped(network: Network, axes: str) -> tuple[str, ...]:
    free = find_axes(network).free
    return tuple(name for name in free if axes == "inner" and not name.endswith(".conv1"))


def by_macs(task: Task, share: float) -> Iterator[Row]:
    network = capture(task.model, task.example)
    whole = cost_in_macs(find_axes(network)).total({})
    for axes in ("inner", "all"):
        for method, cut in cuts(network, task, share, skipped(network, axes)):
            yield {
                "model": task.name, "axes": axes, "method": method,
                "macs_left": round(cost_in_macs(find_axes(cut)).total({}) / whole, 4),
                "accuracy": round(accuracy(Compensate(SAMPLES)(cut, task), task), 2),
            }  # fmt: skip


def by_latency(task: Task) -> Iterator[Row]:
    network = capture(task.model, task.example)
    for axes in ("inner", "all"):
        skip = skipped(network, axes)
        table = latency_table(network, this_machine(), skip, MULTIPLE)
        whole = table.cost_model(find_axes(network)).total({})
        for share in LATENCY_SHARES:
            within = Budget("latency", share, table)
            prune = PruneChannels(skip=skip, multiple=MULTIPLE, budget=within)
            row: Row = {"model": task.name, "axes": axes, "method": f"latency {share:.0%}"}
            try:
                cut = prune(network, task)
                found = require_predicted(table, network, cut)
            except InputError as error:
                yield row | {"refused": str(error)}
                continue
            predicted = table.cost_model(find_axes(cut)).total({}) / whole
            yield row | {
                "predicted": round(predicted, 3), "measured": round(found.ratio, 3),
                "disturbed": found.disturbed,
                "accuracy": round(accuracy(Compensate(SAMPLES)(cut, task), task), 2),
            }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="part of a model's name")
    parser.add_argument("--share", type=float, default=0.5, help="of the MACs, what may be left")
    parser.add_argument("--latency", action="store_true", help="budgets of latency instead")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    folder = data_folder()
    rows: list[Row] = []
    for depth in (20,) if options.latency else (20, 56):
        if options.only in f"ResNet-{depth}":
            task = cifar_task(depth, folder)
            print(f"\n{task.name}, uncut {accuracy(task.model, task):.2f}\n", flush=True)
            found = by_latency(task) if options.latency else by_macs(task, options.share)
            for row in found:
                print("| " + " | ".join(map(str, row.values())) + " |", flush=True)
                rows.append(row)
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
