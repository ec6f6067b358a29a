"""How well times and losses are predicted before a network is made.

    PENJING_DATA=FOLDER python benchmarks/predictions.py times [--depths 20 56] [--json FILE]
        [--runtimes onnxruntime litert openvino executorch]

`times`: a model of times is made from files with parts cut at random, in each runtime, in float32
and int8. It predicts 20 more networks, which were timed in the same windows and which it wasn't
made from. Prints the mean and the largest error.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_folder import data_folder
from harness import table
from networks import cifar_task

from penjing.contract import as_arrays
from penjing.measure.latency import compare
from penjing.network import Network, capture
from penjing.passes import Quantize
from penjing.runtimes import find
from penjing.search.predict.learning import learnt
from penjing.search.predict.parts import Parts
from penjing.search.predict.shape import Shape
from penjing.tasks.task import Task
from penjing.trials.recipe import Recipe

HELD_OUT = 20
MULTIPLE = 8
AT_ONCE = 8
SECONDS = 0.6
Row = dict[str, Any]


def times(task: Task, name: str, precision: str) -> Row:
    """The errors of a model of times in a runtime and a precision."""
    network, runtime = capture(task.model, task.example), find(name)
    sample = as_arrays(task.example[:1])
    rounding = (Quantize(samples=16),) if precision == "int8" else ()

    def made(shape: Shape) -> Network:
        return Recipe(shape.passes)(network, task)

    def timed(shapes: Sequence[Shape]) -> list[float]:
        ratios: list[float] = []
        for begin in range(0, len(shapes), AT_ONCE):
            batch = [Shape(), *shapes[begin : begin + AT_ONCE]]
            with tempfile.TemporaryDirectory() as folder:
                sessions = {}
                for number, shape in enumerate(batch):
                    recipe = Recipe((*shape.passes, *rounding)).for_runtime(name)
                    path = Path(folder) / f"{number}{runtime.ending}"
                    sessions[str(number)] = runtime.load(runtime.lower(recipe(network, task), path))
                found = compare(sessions, sample, "0", SECONDS * len(batch))
            ratios += [found[str(number)].ratio for number in range(1, len(batch))]
        return ratios

    model = learnt(network, Parts(network, MULTIPLE), timed, made, HELD_OUT)
    errors = np.abs(model.errors)
    return {
        "model": task.name, "runtime": name, "precision": precision, "networks": len(errors),
        "mean error": float(errors.mean()), "largest error": float(errors.max()),
    }  # fmt: skip


def rows_of(depths: Sequence[int], runtimes: Sequence[str]) -> Iterator[Row]:
    for depth in depths:
        task = cifar_task(depth, data_folder())
        for name in runtimes:
            for precision in ("float32", "int8"):
                row = times(task, name, precision)
                print(json.dumps(row), flush=True)
                yield row


def cell(column: str, value: Any) -> str:
    return f"{value:.1%}" if "error" in column else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["times"])
    parser.add_argument("--depths", nargs="+", type=int, default=[20, 56])
    parser.add_argument("--runtimes", nargs="+", default=["onnxruntime"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [*rows_of(options.depths, options.runtimes)]
    print(table(rows, [*rows[0]], cell))
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
