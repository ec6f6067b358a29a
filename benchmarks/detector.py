"""What int8 takes from a detector: penjing's files and those of the runtimes' own tools.

    [PENJING_DATA=FOLDER] python benchmarks/detector.py [--epochs 8] [--cut-epochs 6] [--json FILE]

The detector of `examples/detector.py` is trained here, on MNIST's digits if the data folder is
given, else on scikit-learn's. Each installed runtime gets penjing's int8 file, the same with the
most sensitive layers in float, and the same trained for an epoch with its rounding in place; these
three once more of the network at half of its MACs, tuned for a few epochs; and the file of the
runtime's own tool (see `peers.py`). The mean average precision of each is on all test images; what
it loses against the float model has its bound by the bootstrap.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from harness import table
from networks import trained_detector
from peers import PEERS

from penjing.measure.in_pytorch import InPyTorch
from penjing.measure.scores import Scores, judge
from penjing.network import Network, capture
from penjing.passes import Compensate, PruneChannels, Quantize, Tune
from penjing.runtimes import find
from penjing.runtimes.registry import installed
from penjing.search.preflight import usual_training
from penjing.tasks.task import Task
from penjing.trials.evaluation.sensitive_layers import sensitive_layers
from penjing.trials.recipe import Recipe

COLUMNS = ("runtime", "file", "mAP@50-95", "lost", "at most", "kB")
Row = dict[str, Any]


def row(runtime: str, file: str, original: Scores, scores: Scores, size: int) -> Row:
    lost = original.lost(scores)
    made = {"runtime": runtime, "file": file, "mAP@50-95": scores.figure, "kB": size / 1e3,
            "lost": lost.drop, "at most": lost.bound}  # fmt: skip
    print(", ".join(f"{key} {value}" for key, value in made.items()), flush=True)
    return made


def written(network: Network, runtime: str, task: Task, file: str, original: Scores) -> Row:
    """A row for a network's file."""
    own = find(runtime)
    with tempfile.TemporaryDirectory() as folder:
        artifact = own.lower(network, Path(folder) / "model")
        scores = judge(own.load(artifact), task.test, task.metric)
        return row(runtime, file, original, scores, artifact.file_bytes)


def of_peer(runtime: str, task: Task, original: Scores) -> Row | None:
    """A row for the file of the runtime's own tool; None if it can't make one."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            files = PEERS[runtime](task, Path(folder))
        except Exception as error:  # another tool's, of any kind
            print(f"the tool of {runtime} fails: {type(error).__name__}: {str(error)[:200]}")
            return None
    scores = judge(find(runtime).open(files), task.test, task.metric)
    return row(runtime, "of its own tool", original, scores, sum(map(len, files)))


def floats(task: Task, epochs: float) -> dict[str, Network]:
    """The detector, and its tuned half, by what they are called."""
    whole = capture(task.model, task.example)
    options = replace(usual_training(task, whole, 0), epochs=epochs)
    tune = Tune(options, recalibration_samples=0)
    half = Recipe([PruneChannels(0.5), Compensate(), tune])(whole, task)
    return {"whole": whole, "half of the MACs": half}


def rounded(runtime: str, task: Task, network: Network) -> dict[str, Network]:
    """What the runtime's int8 files are made of, by what they are called."""
    own = find(runtime)
    plain = Quantize(**own.constraints)(network, task)
    sensitive = sensitive_layers(plain, network, task)
    layers = dict.fromkeys(sensitive, 0)
    mixed = Quantize(**own.constraints, layers=layers)(network, task)
    names = f"int8 with {', '.join(sensitive) or 'nothing'} in float"
    options = replace(usual_training(task, network, 0), epochs=1.0)
    trained = Tune(options, recalibration_samples=0)(plain, task)
    files = {"int8": plain, names: mixed, "int8, trained": trained}
    return {title: own.as_computed(file) for title, file in files.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8, help="of the detector")
    parser.add_argument("--cut-epochs", type=float, default=6.0, help="of half of it")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = trained_detector(options.epochs)
    original = judge(InPyTorch(task.model), task.test, task.metric)
    print(f"in PyTorch: {original.figure:.4f}", flush=True)
    rows: list[Row | None] = []
    made = floats(task, options.cut_epochs)
    for runtime in [name for name in installed() if name in PEERS]:
        for title, network in made.items():
            files = {"float": network, **rounded(runtime, task, network)}
            rows += [
                written(given, runtime, task, f"{title}, {file}", original)
                for file, given in files.items()
            ]
        rows.append(of_peer(runtime, task, original))
    kept = [each for each in rows if each is not None]
    print(
        table(kept, COLUMNS, lambda _, value: f"{value:.4f}" if isinstance(value, float) else value)
    )
    if options.json:
        options.json.write_text(json.dumps(kept, indent=1))


if __name__ == "__main__":
    main()
