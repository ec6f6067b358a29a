"""What a network keeps when blocks go, and how much faster its files get.

    PENJING_DATA=FOLDER python benchmarks/depth.py untrained [--depth 56] [--json FILE]
    PENJING_DATA=FOLDER python benchmarks/depth.py timed [--runtimes onnxruntime litert]
    PENJING_DATA=FOLDER python benchmarks/depth.py tuned [--shares 0.67 0.5] [--epochs 2]

`untrained`: ResNet-56 (or ResNet-20) on the lossless CIFAR-10 images. Drop chooses blocks one by
one; accuracy of the exported file with 1, 2, .. of them gone: only cut, batch norms recalibrated,
and layers solved by least squares. `timed`: the same files' time in fp32 and int8, relative to the
whole network's fp32 file in that runtime, interleaved. `tuned`: on the JPEG images, as many blocks
go as the int8 file must lose to take that share of the whole network's int8 time; least squares and
distilled tuning follow, and the int8 file is judged on 10,000 test images.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from data_folder import data_folder
from harness import progress, scores_of, table
from networks import cifar_task, jpeg_task

from penjing.contract import Latency, Plan, as_arrays
from penjing.measure.costs import costs
from penjing.measure.latency import compare
from penjing.measure.scores import drop
from penjing.network import Network, capture, carry_out
from penjing.passes import Compensate, Drop, Tune, TuneOptions
from penjing.runtimes import find
from penjing.tasks.data import first
from penjing.tasks.task import Task
from penjing.tools.precision import in_precision
from penjing.tune.recalibrate import recalibrate

Row = dict[str, Any]
MOST = {56: 12, 20: 5}
"""How many blocks go at most, by depth."""
SOLVE = Compensate(samples=512, rows=20_000)


def chosen(network: Network, task: Task, count: int) -> list[tuple[str, str]]:
    """The (end, start) of the blocks to remove, the first one first."""
    plan = Drop(count, samples=1024).plan(network, task)
    print(plan, flush=True)
    return [*plan.edits[0]["values"].items()]


def without(network: Network, blocks: Sequence[tuple[str, str]]) -> Network:
    edit = {"edit": "bypass", "values": dict(blocks), "maps": []}
    return carry_out(network, Plan("Drop", {}, (edit,) if blocks else ()))


def untrained(task: Task, count: int) -> Iterator[Row]:
    """A row for each number of blocks that are gone."""
    network = capture(task.model, task.example)
    whole, _ = scores_of(network, task)
    macs = sum(cost.macs for cost in costs(network))
    yield {"model": task.name, "blocks": 0, "MACs left": 1.0, "cut": 100 * whole.mean()}
    blocks = chosen(network, task, count)
    for number in range(1, count + 1):
        cut = without(network, blocks[:number])
        ways = {
            "cut": cut,
            "recalibrated": recalibrate(cut, first(task.train, 1024)),
            "least squares": SOLVE(cut, task),
        }
        scores = {name: scores_of(way, task)[0] for name, way in ways.items()}
        lost = drop(whole, scores["least squares"])
        yield {
            "model": task.name, "blocks": number,
            "MACs left": sum(cost.macs for cost in costs(cut)) / macs,
            **{name: 100 * found.mean() for name, found in scores.items()},
            "points lost": lost.drop, "bound": lost.bound,
        }  # fmt: skip


def timed(task: Task, blocks: list[Any], name: str, seconds: float) -> Iterator[Row]:
    """A row for each number of blocks: times relative to the whole network's fp32 file."""
    network = capture(task.model, task.example)
    counts = range(0, len(blocks) + 1, 2 if len(blocks) > 6 else 1)
    times = in_runtime(
        task,
        name,
        {f"{count} {kind}": (without(network, blocks[:count]), kind) for count in counts
         for kind in ("float32", "int8")},
        "0 float32",
        seconds,
    )  # fmt: skip
    for count in counts:
        row: Row = {"model": task.name, "runtime": name, "blocks": count}
        for kind in ("float32", "int8"):
            found = times[f"{count} {kind}"]
            row |= {kind: found.ratio, f"{kind} low": found.ratio_low}
            row[f"{kind} high"] = found.ratio_high
        row["ms"] = times["0 float32"].latency_ms
        yield row


def in_runtime(
    task: Task,
    name: str,
    networks: Mapping[str, tuple[Network, str]],
    baseline: str,
    seconds: float,
) -> Mapping[str, Latency]:
    """The latencies of networks in a runtime, each in a precision, in one sitting."""
    runtime = find(name)
    with tempfile.TemporaryDirectory() as folder:
        sessions = {}
        for number, (title, (network, precision)) in enumerate(networks.items()):
            written = in_precision(network, task, runtime, precision)
            path = Path(folder) / f"{number}{runtime.ending}"
            sessions[title] = runtime.load(runtime.lower(written.network, path))
        return compare(sessions, as_arrays(task.example[:1]), baseline, seconds)


def tuned(
    task: Task, most: int, shares: list[float], epochs: float, seconds: float
) -> Iterator[Row]:
    """A row for each share of the int8 time that is left."""
    network = capture(task.model, task.example)
    runtime = find("onnxruntime")
    whole, _ = scores_of(network, task)
    int8, _ = scores_of(in_precision(network, task, runtime, "int8").network, task)
    both = drop(whole, int8)
    yield {"model": task.name, "blocks": 0, "int8 time": 1.0, "fp32": 100 * whole.mean(),
           "int8": 100 * int8.mean(), "points lost": both.drop, "bound": both.bound}  # fmt: skip
    blocks = chosen(network, task, most)
    files = {str(count): (without(network, blocks[:count]), "int8")
             for count in range(len(blocks) + 1)}  # fmt: skip
    times = in_runtime(task, "onnxruntime", files, "0", seconds)
    for share in shares:
        count = min(
            (k for k in range(len(blocks) + 1) if times[str(k)].ratio <= share),
            default=len(blocks),
        )
        left = SOLVE(without(network, blocks[:count]), task)
        before, _ = scores_of(left, task)
        tune = Tune(TuneOptions(epochs=epochs, lr=0.05))
        left = tune(left, task, progress(f"{count} blocks gone"))
        made = in_precision(left, task, runtime, "int8").network
        now = in_runtime(task, "onnxruntime", {"0": files["0"], "1": (left, "int8")}, "0", seconds)
        scores, _ = scores_of(made, task)
        lost = drop(whole, scores)
        yield {
            "model": task.name, "blocks": count, "wanted": share, "int8 time": now["1"].ratio,
            "low": now["1"].ratio_low, "high": now["1"].ratio_high,
            "untuned": 100 * before.mean(), "fp32": 100 * scores_of(left, task)[0].mean(),
            "int8": 100 * scores.mean(), "points lost": lost.drop, "bound": lost.bound,
        }  # fmt: skip


def cell(column: str, value: Any) -> str:
    if column in ("model", "runtime", "blocks"):
        return str(value)
    return f"{value:.3f}" if column in ("MACs left", "int8 time") or value < 3 else f"{value:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["untrained", "timed", "tuned"])
    parser.add_argument("--depth", type=int, choices=[20, 56], default=56)
    parser.add_argument("--most", type=int, help="blocks to remove at most")
    parser.add_argument("--runtimes", nargs="+", default=["onnxruntime"])
    parser.add_argument("--shares", nargs="+", type=float, default=[0.67, 0.5])
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--seconds", type=float, default=20.0, help="of timing, each time")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    count = options.most or MOST[options.depth]
    rows: list[Row] = []
    if options.part == "tuned":
        task = jpeg_task(options.depth, data_folder())
        rows = [*_shown(tuned(task, count, options.shares, options.epochs, options.seconds))]
    else:
        task = cifar_task(options.depth, data_folder())
        if options.part == "untrained":
            rows = [*_shown(untrained(task, count))]
        else:
            blocks = chosen(capture(task.model, task.example), task, count)
            torch.set_num_threads(1)
            for name in options.runtimes:
                rows += _shown(timed(task, blocks, name, options.seconds))
    columns = list(dict.fromkeys(key for row in rows for key in row))
    print(table(rows, columns, cell))
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=1, default=float))


def _shown(rows: Iterator[Row]) -> Iterator[Row]:
    """The same rows, each printed as it comes."""
    for row in rows:
        print(json.dumps(row, default=float), flush=True)
        yield row


if __name__ == "__main__":
    main()
