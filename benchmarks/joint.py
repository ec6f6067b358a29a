"""The joint search, beside the fastest int8 file that any runtime's own tool makes.

    PENJING_DATA=FOLDER python benchmarks/joint.py --model ResNet-20 --minutes 60 [--json FILE]
        [--max-drop 1.0] [--strategy joint] [--seed 0] [--out FOLDER]

A fit on the JPEG images, with every runtime that is installed. Then its answer and the peers' int8
files of the unchanged network are timed in the same windows, one thread, batch 1. The peers are
ONNX Runtime's quantize_static, NNCF, ExecuTorch's XNNPACK quantizer and Google's ai-edge-quantizer;
one whose package is missing is left out, and named. Prints the answer's share of the fastest peer's
time with its interval, and its loss with its bound on all 10,000 test images. With --out, an
interrupted fit goes on.

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
from harness import table
from networks import jpeg_task
from peers import PEERS

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

DEPTHS = {"ResNet-20": 20, "ResNet-56": 56}
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


def say(stage: str, share: float, best: str) -> None:
    print(f"[{share:4.0%}] {stage} (best so far: {best})", flush=True)


def cell(column: str, value: Any) -> str:
    if isinstance(value, bool | str):
        return str(value)
    return f"{value:.3f}" if column in ("share", "low", "high", "ms") else f"{value:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=DEPTHS, default="ResNet-20")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--max-drop", type=float, default=1.0)
    parser.add_argument("--strategy", default="joint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20.0, help="of the last timing")
    parser.add_argument("--out", type=Path, help="keep the fit in this folder, or go on with it")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    task = jpeg_task(DEPTHS[options.model], data_folder())
    with tempfile.TemporaryDirectory() as folder:
        out = options.out or Path(folder) / "fitted"
        given = FitOptions(
            seed=options.seed,
            strategy=find_strategy(options.strategy),
            resume=out.exists(),
            progress=say,
        )
        result = fit(task, "cpu", options.max_drop, options.minutes, out, given)
        torch.set_num_threads(1)
        rows = rows_of(task, result, out, options.seconds)
    print("\n".join(result.notes))
    print(table(rows, [*rows[0]], cell))
    if options.json:
        kept = {"rows": rows, "result": result.to_json()}
        options.json.write_text(json.dumps(kept, indent=1, default=float))


if __name__ == "__main__":
    main()
