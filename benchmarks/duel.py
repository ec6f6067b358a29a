"""Equal minutes for the joint search and for simpler ones; `python benchmarks/joint.py --duel`.

The rivals are the quick search, the joint search with blocks alone and with widths alone, and what
one would do by hand with other tools: Torch-Pruning's group norm, the same distilled training, and
ONNX Runtime's quantize_static. That one gets three trainings of a third of the time each, and looks
for the smallest network that keeps the budget by bisection; it may look at all test images after
each, which none of ours may. Its quantizing and its looks don't count.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from equal_budget import by_torch_pruning
from peers import quantize_static

from penjing.contract import Array, Session
from penjing.measure.latency import compare
from penjing.measure.scores import drop, score
from penjing.runtimes import find
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.search.fit import fit
from penjing.search.options import FitOptions
from penjing.search.strategies import Joint, Quick
from penjing.search.study import MOST_EPOCHS, Strategy
from penjing.tasks.batches import number_of_batches
from penjing.tasks.task import Task
from penjing.trials.result import Result
from penjing.tune.options import TuneOptions
from penjing.tune.train import step_seconds, train

Row = dict[str, Any]
STRATEGIES: dict[str, Strategy] = {
    "joint": Joint(),
    "quick": Quick(),
    "blocks alone": Joint(("blocks",)),
    "widths alone": Joint(("widths",)),
}
BY_HAND = "Torch-Pruning, distillation, quantize_static"
TURNS = 3
"""How often that one trains."""
LEAST = 0.1
"""The share of the MACs below which it doesn't go."""


@dataclass(frozen=True)
class Terms:
    """What is the same for all: the task, the budget in points and the minutes."""

    task: Task
    max_drop: float
    minutes: float


def by_penjing(name: str, terms: Terms, seed: int, folder: Path) -> tuple[str, Session]:
    """What the answer of a fit is called, and its file, opened. A fit that was cut off begins anew,
    and none knows what an earlier one has learnt."""
    known = folder.exists() and Result.load(folder).finished
    given = FitOptions(
        seed=seed, strategy=STRATEGIES[name], resume=known, overwrite=not known, cache=None
    )
    result = fit(terms.task, "cpu", terms.max_drop, terms.minutes, folder, given)
    runtime = find(result.answer.runtime)
    assert result.answer.artifact is not None
    return result.chosen, runtime.load(runtime.artifact(folder / result.answer.artifact))


def by_hand(terms: Terms, seed: int, folder: Path) -> tuple[str, Session]:
    """The file with the fewest MACs that keeps the budget by its bound on all test images; that of
    the whole network if none does."""
    kept, title = folder / "kept.onnx", folder / "title.txt"
    if not title.exists():
        folder.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(*quantize_static(terms.task, _emptied(folder / "whole")))
        best, low, high = "whole", LEAST, 1.0
        right = score(OnnxRuntime().open([kept.read_bytes()]), terms.task.test, terms.task.metric)
        original = _float_scores(terms.task)
        print(f"by hand: the whole network loses {drop(original, right).drop:.2f}", flush=True)
        for turn in range(TURNS):
            share = (low * high) ** 0.5
            (data,) = _trained(terms, share, seed, _emptied(folder / f"turn {turn}"))
            mine = score(OnnxRuntime().open([data]), terms.task.test, terms.task.metric)
            lost = drop(original, mine)
            print(f"by hand: {share:.2f} of the MACs, {lost.drop:.2f} lost, bound {lost.bound:.2f}")
            if lost.bound <= terms.max_drop:
                kept.write_bytes(data)
                best, high = f"{share:.2f} of the MACs", share
            else:
                low = share
        title.write_text(best)
    return title.read_text(), OnnxRuntime().open([kept.read_bytes()])


def _emptied(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    return folder


def _float_scores(task: Task) -> Array:
    with torch.no_grad():
        outputs = [(task.model(x), y) for x, y in task.test]
    hits = [(found.argmax(1) == y).double() for found, y in outputs]
    return torch.cat(hits).numpy()


def _trained(terms: Terms, share: float, seed: int, folder: Path) -> list[bytes]:
    """That share of the network, trained for its share of the time and quantized."""
    task, begin = terms.task, time.monotonic()
    torch.manual_seed(seed)
    pruned = by_torch_pruning(task, share)
    options = TuneOptions(seed=seed)
    step = step_seconds(pruned, task, options, time.monotonic)
    seconds = 60 * terms.minutes / TURNS - (time.monotonic() - begin)
    epochs = min(MOST_EPOCHS, seconds / (step * number_of_batches(task.train)))
    tuned, _ = train(pruned, task, replace(options, epochs=epochs), None, time.monotonic, seconds)
    return quantize_static(replace(task, model=tuned.eval()), folder)


def duel(terms: Terms, seeds: int, out: Path, seconds: float) -> list[Row]:
    """A row for each contestant and seed: its file's share of the time of quantize_static's file of
    the whole network, in the same windows, and what it loses on all test images. What the folder
    holds of an earlier run isn't done again."""
    titles: dict[tuple[str, int], str] = {}
    sessions: dict[str, Session] = {}
    for seed, name in itertools.product(range(seeds), (*STRATEGIES, BY_HAND)):
        key, folder = f"{name}, seed {seed}", out / f"{name} {seed}"
        print(key, flush=True)
        titles[name, seed], sessions[key] = (
            by_hand(terms, seed, folder)
            if name == BY_HAND
            else by_penjing(name, terms, seed, folder)
        )
    torch.set_num_threads(1)
    whole = out / "whole network"
    whole.mkdir(exist_ok=True)
    (data,) = quantize_static(terms.task, _emptied(whole))
    sessions["whole"] = OnnxRuntime().open([data])
    times = compare(sessions, terms.task.example[:1].numpy(), "whole", seconds)
    original, rows = _float_scores(terms.task), []
    for (name, seed), title in titles.items():
        key = f"{name}, seed {seed}"
        lost = drop(original, score(sessions[key], terms.task.test, terms.task.metric))
        rows.append({
            "model": terms.task.name, "search": name, "seed": seed, "file": title,
            "share": times[key].ratio, "low": times[key].ratio_low, "high": times[key].ratio_high,
            "points lost": lost.drop, "bound": lost.bound, "disturbed": times[key].disturbed,
        })  # fmt: skip
    return rows
