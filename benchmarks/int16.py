"""What values of 16 bits give back to a detector on an Ethos-U NPU, and what they cost.

    [PENJING_DATA=FOLDER] python benchmarks/int16.py [--epochs 8] [--json FILE]

The detector of `examples/detector.py` is trained here, on MNIST's digits if the data folder is
given, else on scikit-learn's. Its files are for the target arm-corstone-300, by LiteRT and Vela: as
it is, with its boxes in pixels, and once more up to its last layer, from whose numbers a program
makes boxes afterwards. Each is int8, then with its last layer in float, with 16 bits for the last
layer, and with 16 bits everywhere. The mean average precision is on all test images, of the file in
LiteRT; the cycles are Vela's estimate of what is on the NPU, and count no operator that is left to
the CPU.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from harness import table
from networks import trained_detector
from torch import Tensor, nn

from penjing import detection
from penjing.contract import Array
from penjing.measure.in_pytorch import InPyTorch
from penjing.measure.scores import Scores, judge
from penjing.network import capture
from penjing.network.graph.layers import layers_of
from penjing.passes import Quantize
from penjing.runtimes import find
from penjing.runtimes.contract import Runtime
from penjing.targets import find_target
from penjing.tasks.task import Task, loss_of
from penjing.trials.evaluation.sensitive_layers import sensitive_layers

TARGET = "arm-corstone-300"
COLUMNS = ("boxes", "file", "mAP@50-95", "lost", "at most", "kB", "cycles", "on the CPU")
Row = dict[str, Any]


def apart(task: Task) -> Task:
    """The task of the detector up to its last layer; its boxes are made of what that gives."""
    boxes = copy.deepcopy(task.model)
    boxes.layers = nn.Identity()

    def loss(y: Tensor, targets: Any) -> Tensor:
        return loss_of(task, boxes(y), targets)

    def made(y: Array) -> Any:
        with torch.no_grad():
            return detection.surest(boxes(torch.from_numpy(y)).numpy())

    metric = detection.mean_average_precision(made, detection.unpadded, size=(64, 64))
    layers = task.model.get_submodule("layers")
    return replace(task, model=layers, loss=loss, metric=metric, source=None)


def rows_of(boxes: str, task: Task, runtime: Runtime) -> list[Row]:
    """The figures of each file."""
    network = capture(task.model, task.example)
    original = judge(InPyTorch(task.model), task.test, task.metric)
    print(f"boxes {boxes}: {original.figure:.4f} in PyTorch", flush=True)
    names = tuple(str(layer.meta["layer"]) for layer in layers_of(network))
    last = names[-1:]
    files: dict[str, dict[str, Any]] = {
        "int8": {},
        "the last layer in float": {"layers": {last[0]: 0}},
        "the last layer with 16 bits": {"int16": last},
        "all with 16 bits": {"int16": names},
    }
    rows = []
    for title, options in files.items():
        rounded = Quantize(**{**runtime.constraints, **options})(network, task)
        if not options:
            named = sensitive_layers(rounded, network, task)
            print(f"sensitive layers: {', '.join(named) or 'none'}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            artifact = runtime.lower(rounded, Path(folder) / f"model{runtime.ending}")
            scores = judge(runtime.load(artifact), task.test, task.metric)
            rows.append(row(original, scores, runtime, artifact))
        rows[-1] |= {"boxes": boxes, "file": title}
        print(rows[-1], flush=True)
    return rows


def row(original: Scores, scores: Scores, runtime: Runtime, artifact: Any) -> Row:
    """The figures of a file."""
    lost, estimate = original.lost(scores), runtime.estimate(artifact)
    fallen = [place for place in runtime.placement(artifact) if place.unit == "cpu"]
    return {"mAP@50-95": scores.figure, "lost": lost.drop, "at most": lost.bound,
            "kB": round(artifact.file_bytes / 1e3), "on the CPU": len(fallen),
            "cycles": estimate.cycles if estimate else None}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8, help="of the detector")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = trained_detector(options.epochs)
    runtime = find("ethosu").on(find_target(TARGET))
    rows = rows_of("in the file", task, runtime) + rows_of("afterwards", apart(task), runtime)
    print(
        table(
            rows, COLUMNS, lambda _, value: f"{value:.4f}" if type(value) is float else f"{value}"
        )
    )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
