"""The figures that penjing tells, and what the files give in a process that has no penjing.

    [PENJING_DATA=FOLDER] python benchmarks/without_penjing.py [--only NAME ...] [--json FILE]

Each example is trained and fitted briefly, for a small file. The original's file and the answer's
are then run by `figure_alone.py` with ONNX Runtime alone, on the test data in a NumPy file, and its
figure is held against penjing's. It runs where ONNX Runtime is the only runtime installed.

The example of ResNet-20 needs the data folder, and that of timm needs timm: its images are
scikit-learn's digits here, in folders, on which a small network of timm's is trained.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from harness import table

import penjing
from penjing.search.budget import Budget
from penjing.search.preflight import prepare
from penjing.search.strategies import Quick
from penjing.tasks.checks import check
from penjing.tasks.task import as_call
from penjing.tasks.torchvision_operators import declare_missing
from penjing.trials.trial import Trial

HERE = Path(__file__).parent
COLUMNS = ("example", "file", "kB", "samples", "metric", "penjing", "without", "difference")
Row = dict[str, Any]


@dataclass(frozen=True)
class Example:
    """How an example is fitted.

    Attributes:
        max_drop: its budget.
        arguments: of its function, by name.
        missing: why it can't be run here; empty if it can.
    """

    max_drop: float | str = 1.0
    arguments: Mapping[str, str] = field(default_factory=dict)
    missing: str = ""


def examples(folder: Path) -> dict[str, Example]:
    """All examples that are tasks. What they need is put into the folder."""
    data = "" if os.environ.get("PENJING_DATA") else "PENJING_DATA names no folder"
    timm = Example(missing="timm isn't installed")
    if find_spec("timm"):
        images, best, architecture = str(folder / "images"), str(folder / "best.pth"), "test_resnet"
        arguments = {"images": images, "checkpoint": best, "architecture": architecture}
        timm = Example(3.0, arguments)
    return {
        "anomaly": Example(0.5),
        "cifar10_resnet20": Example(missing=data),
        "detector": Example(0.01),
        "forecast": Example("5%"),
        "keywords": Example(),
        "own_network": Example(),
        "segmentation": Example(),
        "text": Example(),
        "timm_model": timm,
        "two_inputs": Example(),
        "vibration": Example(),
    }


def saved(task: penjing.Task, file: Path, path: Path) -> None:
    """Write all inputs of the test data by their names in the file, and all targets."""
    inputs = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).get_inputs()
    batches = []
    for given, targets in check(task)[0].test:
        args, kwargs = as_call(given)
        values = dict(zip((each.name for each in inputs), args, strict=False)) | kwargs
        arrays = {f"input.{name}": np.asarray(value) for name, value in values.items()}
        if isinstance(targets, dict):
            arrays |= {f"target.{name}": np.asarray(value) for name, value in targets.items()}
        else:
            arrays["target"] = np.asarray(targets)
        batches.append(arrays)
    whole = {key: np.concatenate([each[key] for each in batches]) for key in batches[0]}
    np.savez(path, allow_pickle=False, **whole)


def alone(file: Path, data: Path, example: str) -> dict[str, Any]:
    """What `figure_alone.py` prints of a file."""
    command = [sys.executable, "-I", str(HERE / "figure_alone.py"), str(file), str(data), example]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def rows_of(name: str, example: Example, folder: Path, minutes: float) -> Iterator[Row]:
    """A row for the original's file, and one for the answer's."""
    given = penjing.find_task(str(HERE.parent / "examples" / f"{name}.py"), **example.arguments)
    task, _, _ = prepare(given, Budget.of(example.max_drop))  # it may set test data aside
    options = penjing.FitOptions(goal="size", strategy=Quick(), cache=None, overwrite=True)
    result = penjing.fit(
        task, "cpu", example.max_drop, minutes=minutes, out=folder / "fitted", options=options
    )
    saved(task, folder / "fitted" / str(result.baseline.artifact), folder / "test.npz")
    figures: dict[str, tuple[Trial, float | None]] = {
        "original": (result.baseline, result.test_baseline),
        result.chosen: (result.answer, result.test_score),
    }
    for title, (trial, figure) in figures.items():
        assert trial.artifact is not None
        file = folder / "fitted" / trial.artifact
        told = alone(file, folder / "test.npz", name)
        assert figure is not None
        yield {
            "example": name, "file": title, "kB": file.stat().st_size / 1e3,
            "samples": told["samples"], "metric": task.metric.name, "penjing": figure,
            "without": told["figure"], "difference": told["figure"] - figure,
        }  # fmt: skip


def folders_of_digits(folder: Path, architecture: str) -> None:
    """Images in a folder for each class, and the weights of a network of timm's that knows them."""
    declare_missing()
    import timm
    from PIL import Image
    from sklearn.datasets import load_digits

    digits, splits = load_digits(), ("train", "train", "train", "validation", "test")
    for number, (pixels, kind) in enumerate(zip(digits.images, digits.target, strict=True)):
        place = folder / "images" / splits[number % 5] / str(kind)
        place.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray((15.9 * pixels).astype(np.uint8))
        image.resize((64, 64)).save(place / f"{number}.png")
    torch.manual_seed(0)
    model = timm.create_model(architecture, pretrained=False, num_classes=10)
    wants = timm.data.resolve_model_data_config(model)
    train = penjing.ImageFolder(
        folder / "images" / "train", size=wants["input_size"][1:], mean=wants["mean"],
        std=wants["std"], shuffle=True, batch_size=32,
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for x, y in (batch for _ in range(4) for batch in train):
        optimizer.zero_grad()
        torch.autograd.backward(torch.nn.functional.cross_entropy(model(x), y))
        optimizer.step()
    torch.save(model.state_dict(), folder / "best.pth")


def cell(column: str, value: Any) -> str:
    if column == "difference":
        return f"{value:.1e}" if value else "0"
    if column == "kB":
        return f"{value:.0f}"
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], help="names of examples")
    parser.add_argument("--minutes", type=float, default=0.5, help="of each fit")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as place:
        for name, example in examples(Path(place)).items():
            if options.only and name not in options.only:
                continue
            if example.missing:
                print(f"skipped {name}: {example.missing}")
                continue
            if "architecture" in example.arguments:
                folders_of_digits(Path(place), example.arguments["architecture"])
            for row in rows_of(name, example, Path(place), options.minutes):
                print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
                rows.append(row)
    print(table(rows, COLUMNS, cell))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
