"""The joint search, beside the fastest int8 file that any runtime's own tool makes.

    PENJING_DATA=FOLDER python benchmarks/joint.py --model ResNet-20 --minutes 60 [--json FILE]
        [--max-drop 1.0] [--strategy joint] [--seed 0] [--out FOLDER] [--goal size]
        [--target arm-corstone-300] [--duel --seeds 3]

A fit on the JPEG images, with every runtime that is installed. Then its answer and the peers' int8
files of the unchanged network are timed in the same windows, one thread, batch 1. The peers are
ONNX Runtime's quantize_static, NNCF, ExecuTorch's XNNPACK quantizer and Google's ai-edge-quantizer;
one whose package is missing is left out, and named. Prints the answer's share of the fastest peer's
time with its interval, and its loss with its bound on all 10,000 test images. With --out, an
interrupted fit goes on. MobileNetV2 (width 0.35) is trained here first, for four epochs.

With another goal than time, or a target that isn't here, there is nothing to time beside the peers:
then all files that keep the budget are printed with their bytes and their time, or what stands for
it, as shares of the best uncut int8 file's.

With --duel, searches that are simpler get the same minutes, see `duel.py`.

The fit may have used half of the test images to choose; its own certificate is from the others.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from data_folder import data_folder
from duel import Terms, duel
from harness import table
from mobilenet_ladder import trained
from networks import jpeg_task
from peers import PEERS
from where_time_goes import in_words, sampled, seconds

from penjing.contract import Array, Session
from penjing.measure.latency import compare
from penjing.measure.scores import drop, score
from penjing.runtimes import find
from penjing.runtimes.registry import installed
from penjing.search.fit import fit
from penjing.search.options import FitOptions
from penjing.search.strategies import find_strategy
from penjing.tasks.task import Task
from penjing.trials.result import Result
from penjing.trials.trial import Status

ROUNDING = {"Quantize", "Equalize"}
"""The passes of int8 files of which nothing was cut."""
DEPTHS = {"ResNet-20": 20, "ResNet-56": 56}
MOBILENET, WIDTH, EPOCHS = "MobileNetV2", 0.35, 4.0
"""Trained here from scratch, on the same images."""
Row = dict[str, Any]


def peers(task: Task) -> dict[str, Session]:
    """The int8 files of the runtimes' own tools, by runtime."""
    sessions: dict[str, Session] = {}
    for name in installed():
        if name not in PEERS:
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                sessions[f"peer in {name}"] = find(name).open(PEERS[name](task, Path(folder)))
            except ImportError as error:
                print(f"no peer in {name}: {error}", flush=True)
    return sessions


def rows_of(task: Task, result: Result, out: Path, seconds: float) -> list[Row]:
    """A row for the answer, for its runtime's original, and for each peer."""
    answer, sessions = result.answer, peers(task)
    assert answer.artifact is not None
    runtime = find(answer.runtime)
    sessions["answer"] = runtime.load(runtime.artifact(out / answer.artifact))
    first = find(result.baseline.runtime)
    assert result.baseline.artifact is not None
    sessions["original"] = first.load(first.artifact(out / result.baseline.artifact))
    one = task.example[:1].numpy()
    times = compare(sessions, one, "original", seconds)
    rivals = [name for name in sessions if name.startswith("peer")]
    best = min(rivals, key=lambda name: times[name].ratio) if rivals else "original"
    times = compare(sessions, one, best, seconds)
    scores: dict[str, Array] = {
        name: score(session, task.test, task.metric) for name, session in sessions.items()
    }
    rows = []
    for name, mine in scores.items():
        lost = drop(scores["original"], mine)
        rows.append({
            "model": task.name, "file": answer.title if name == "answer" else name,
            "of": best, "share": times[name].ratio, "low": times[name].ratio_low,
            "high": times[name].ratio_high, "ms": times[name].latency_ms,
            "accuracy": 100 * float(mine.mean()), "points lost": lost.drop, "bound": lost.bound,
            "disturbed": times[name].disturbed,
        })  # fmt: skip
    return sorted(rows, key=lambda row: float(row["share"]))


def beside_integers(result: Result) -> list[Row]:
    """A row for the original and each file within the budget, the best one by the goal first."""
    whole, aim = result.baseline, result.aim
    kept = [trial for trial in result.trials if trial.status == Status.KEPT]
    uncut = [trial for trial in kept if trial.methods and {*trial.methods} <= ROUNDING]
    of = min(uncut or [whole], key=lambda trial: aim.share(trial, whole))
    rows = []
    for trial in sorted([whole, *kept], key=lambda trial: aim.share(trial, whole)):
        mine, theirs = trial.measurement, of.measurement
        assert mine.latency is not None
        assert theirs.latency is not None
        size, whole_size = (m.file_bytes or 0 for m in (mine, theirs))
        lost = trial.drop if trial.key != whole.key else None
        rows.append({
            "model": result.task, "file": trial.title, "of": of.title,
            "bytes": size, "share of bytes": size / max(whole_size, 1),
            "cost": mine.latency.latency_ms, "in": result.estimated_in or "ms",
            "share of cost": mine.latency.ratio / theirs.latency.ratio,
            "points lost": lost.drop if lost else 0.0, "bound": lost.bound if lost else 0.0,
            "answer": trial.key == result.answer.key,
        })  # fmt: skip
    tested = result.test_drop
    for row in rows:
        if row["answer"] and tested is not None:
            row |= {"test points lost": tested.drop, "test bound": tested.bound}
    return rows


def say(stage: str, share: float, result: Result) -> None:
    print(f"[{share:4.0%}] {stage} (best so far: {result.chosen})", flush=True)


def cell(column: str, value: Any) -> str:
    if isinstance(value, bool | str):
        return str(value)
    if column == "bytes":
        return f"{value:.0f}"
    exact = column in ("low", "high", "ms", "cost") or column.startswith("share")
    return f"{value:.3f}" if exact else f"{value:.2f}"


def in_columns(rows: list[Row]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return table([dict.fromkeys(columns, "") | row for row in rows], columns, cell)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=[*DEPTHS, MOBILENET], default="ResNet-20")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--max-drop", type=float, default=1.0)
    parser.add_argument("--strategy", default="joint")
    parser.add_argument("--goal", default="latency")
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20.0, help="of the last timing")
    parser.add_argument("--out", type=Path, help="keep the fit in this folder, or go on with it")
    parser.add_argument("--weights", type=Path, help="keep MobileNetV2's trained weights here")
    parser.add_argument("--duel", action="store_true", help="against simpler searches")
    parser.add_argument("--seeds", type=int, default=3, help="of the duel, 0 and up")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.duel and (options.model == MOBILENET or options.goal != "latency"
                         or options.target != "cpu" or options.strategy != "joint"):  # fmt: skip
        parser.error("--duel is for the two ResNets, and takes no goal, target or strategy")
    data = data_folder(needed_by=parser)
    if options.model == MOBILENET:
        task = trained(WIDTH, EPOCHS, options.weights)
    else:
        task = jpeg_task(DEPTHS[options.model], data)
    with tempfile.TemporaryDirectory() as folder:
        out = options.out or Path(folder) / "fitted"
        if options.duel:
            terms = Terms(task, options.max_drop, options.minutes)
            rows = duel(terms, options.seeds, out, options.seconds)
            print(in_columns(rows))
            if options.json:
                options.json.write_text(json.dumps({"rows": rows}, indent=1, default=float))
            return
        given = FitOptions(
            goal=options.goal,
            seed=options.seed,
            cache=None,
            strategy=find_strategy(options.strategy),
            resume=out.exists(),
            progress=say,
        )
        with sampled() as seen:
            result = fit(task, options.target, options.max_drop, options.minutes, out, given)
        torch.set_num_threads(1)
        plain = options.goal == "latency" and not result.estimated_in
        rows = rows_of(task, result, out, options.seconds) if plain else beside_integers(result)
    print("\n".join(result.notes))
    print(f"where the time went: {in_words(seen)}")
    print(in_columns(rows))
    if options.json:
        kept = {"rows": rows, "result": result.to_json(), "seconds by kind": seconds(seen)}
        options.json.write_text(json.dumps(kept, indent=1, default=float))


if __name__ == "__main__":
    main()
