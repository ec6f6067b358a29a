"""How well times and losses are predicted before a network is made.

    PENJING_DATA=FOLDER python benchmarks/predictions.py times [--depths 20 56] [--json FILE]
        [--runtimes onnxruntime litert openvino executorch]

`times`: a model of times is made from files with parts cut at random, in each runtime, in float32
and int8. It predicts 20 more networks, which were timed in the same windows and which it wasn't
made from. Prints the mean and the largest error.

    python benchmarks/predictions.py losses FITTED [FITTED ...] [--json FILE]

`losses`: from the folders of finished fits by `joint`: how the losses that were expected of
networks rank beside those that were measured, before training (in nats, the sum of what the parts
of a step lose beside what the step lost) and after it (in points on the validation data). 1 is the
same order.
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
from scipy.stats import spearmanr

from penjing.contract import as_arrays
from penjing.measure.latency import compare
from penjing.network import Network, capture
from penjing.passes import Quantize
from penjing.runtimes import find
from penjing.search.predict.learning import learnt
from penjing.search.predict.parts import Parts
from penjing.search.predict.shape import Shape
from penjing.tasks.task import Task
from penjing.trials.contract import Probed
from penjing.trials.ledger import Ledger
from penjing.trials.recipe import Recipe
from penjing.trials.result import Result

HELD_OUT = 20
LADDER = "networks cut from "
"""How what a fit remembers of its networks begins; what it remembers of one step has no steps."""
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

    def timed(shapes: Sequence[Shape]) -> list[Probed]:
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
        return [Probed({"latency": ratio}) for ratio in ratios]

    cost = learnt(Parts(network, MULTIPLE), "latency", timed, made, HELD_OUT)
    errors = np.abs(cost.models["latency"].errors)
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


def losses(folder: Path) -> Row:
    """How the losses rank that were expected in a fit."""
    result, ledger = Result.load(folder), Ledger.resumed(folder)
    assert ledger is not None
    kept = [value for name, value in ledger.remembered.items() if name.startswith(LADDER)]
    ledger.close()
    ladders = [value["steps"] for value in kept if isinstance(value, dict) and "steps" in value]
    steps = [step for ladder in ladders for step in ladder]
    tuned = [
        (made.drop, trial.drop.drop)
        for made in result.predictions
        if (trial := result.trial(made.key)) is not None and trial.drop is not None
    ]
    return {
        "fit": result.task, "networks": len(steps),
        "untrained, rank correlation": _ranked([(s["expected"], s["loss"]) for s in steps]),
        "untrained, mean error": _off([(s["expected"], s["loss"]) for s in steps]),
        "trained networks": len(tuned), "trained, rank correlation": _ranked(tuned),
        "trained, mean error": _off(tuned),
    }  # fmt: skip


def _off(pairs: Sequence[tuple[float, float]]) -> float | None:
    """The mean difference; None of none."""
    return float(np.mean([abs(a - b) for a, b in pairs])) if pairs else None


def _ranked(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's rank correlation; None of fewer than three."""
    return float(spearmanr(*zip(*pairs, strict=True)).statistic) if len(pairs) > 2 else None


def cell(column: str, value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1%}" if column in ("mean error", "largest error") else f"{value:.3f}"
    return "" if value is None else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["times", "losses"])
    parser.add_argument("folders", nargs="*", type=Path, help="of fits, for losses")
    parser.add_argument("--depths", nargs="+", type=int, default=[20, 56])
    parser.add_argument("--runtimes", nargs="+", default=["onnxruntime"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.part == "losses" and not options.folders:
        parser.error("losses needs the folder of a fit")
    if options.part == "losses":
        rows = [losses(folder) for folder in options.folders]
    else:
        rows = [*rows_of(options.depths, options.runtimes)]
    print(table(rows, [*rows[0]], cell))
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
