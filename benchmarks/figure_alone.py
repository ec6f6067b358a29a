"""The figure of an exported file on test data, without penjing and without PyTorch.

    python -I benchmarks/figure_alone.py FILE.onnx DATA.npz EXAMPLE

ONNX Runtime runs the file, and the metric of the example is NumPy's, scikit-learn's or written out
here. DATA.npz holds `input.NAME` for each input of the file, and `target` or `target.NAME`, of all
samples; `without_penjing.py` writes it. Neither penjing nor torch can be imported here.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
from sklearn.metrics import jaccard_score, mean_absolute_error, roc_auc_score

BLOCKED = ("penjing", "torch")
Array = np.ndarray[Any, Any]
Targets = Mapping[str, Array]


def outputs_of(path: str, inputs: Mapping[str, Array], at_a_time: int = 100) -> Array:
    """What the file's first output is for all samples."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    samples = len(next(iter(inputs.values())))
    return np.concatenate([
        session.run(None, {name: x[n : n + at_a_time] for name, x in inputs.items()})[0]
        for n in range(0, samples, at_a_time)
    ])  # fmt: skip


def accuracy(y: Array, targets: Targets) -> float:
    return float(np.mean(y.argmax(1) == targets["target"]))


def area(y: Array, targets: Targets) -> float:
    errors = np.square(y - targets["target.window"]).mean(1)
    return float(roc_auc_score(targets["target.abnormal"], errors))


def error(y: Array, targets: Targets) -> float:
    return float(mean_absolute_error(targets["target"], y))


def mean_iou(y: Array, targets: Targets) -> float:
    there, said = targets["target"].ravel(), y.argmax(1).ravel()
    return float(jaccard_score(there, said, labels=np.unique(there), average="macro"))


def within(y: Array, targets: Targets) -> float:
    return float(np.mean(np.abs(y - targets["target"]) <= 0.05))


def iou(box: Array, boxes: Array) -> Array:
    """What a box shares with each of others, as a share of what both cover."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    shared = sides.clip(0).prod(1)
    both = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return shared / (both - shared)  # type: ignore[no-any-return]


def found(y: Array, kind: int) -> Array:
    """The boxes and scores of a class in an image, after non-maximum suppression."""
    rows = np.column_stack([y[:, :4], y[:, 4:].max(1)])[y[:, 4:].argmax(1) == kind]
    rows = rows[np.argsort(-rows[:, 4], kind="stable")]
    rows = rows[rows[:, 4] >= 0.05]
    kept: list[Array] = []
    for row in rows:
        if not kept or iou(row[:4], np.array(kept)[:, :4]).max() <= 0.5:
            kept.append(row)
    return np.array(kept).reshape(-1, 5)


def average_precision(said: list[Array], there: list[Array], level: float) -> float:
    """Of a class, at 101 recalls: of each image, the boxes said and those that are there."""
    scores, hits = list[float](), list[bool]()
    for rows, boxes in zip(said, there, strict=True):
        free = np.ones(len(boxes), bool)
        for row in rows:
            overlap = np.where(free, iou(row[:4], boxes), -1.0)
            hit = bool(len(boxes)) and overlap.max() >= level
            if hit:
                free[overlap.argmax()] = False
            scores.append(row[4])
            hits.append(hit)
    right = np.cumsum(np.array(hits, float)[np.argsort(-np.array(scores), kind="stable")])
    precision, recall = right / np.arange(1, len(right) + 1), right / sum(map(len, there))
    reached = [precision[recall >= least - 1e-12] for least in np.linspace(0, 1, 101)]
    return float(np.mean([some.max() if len(some) else 0.0 for some in reached]))


def mean_average_precision(y: Array, targets: Targets) -> float:
    boxes, parts = targets["target"], list[float]()
    for kind in np.unique(boxes[:, :, 4][boxes[:, :, 4] >= 0]):
        said = [found(image, int(kind)) for image in y]
        there = [image[image[:, 4] == kind][:, :4] for image in boxes]
        parts += [average_precision(said, there, 0.5 + 0.05 * step) for step in range(10)]
    return float(np.mean(parts))


FIGURES = {
    "anomaly": area,
    "cifar10_resnet20": accuracy,
    "detector": mean_average_precision,
    "forecast": error,
    "keywords": accuracy,
    "own_network": accuracy,
    "segmentation": mean_iou,
    "text": accuracy,
    "timm_model": accuracy,
    "two_inputs": within,
    "vibration": accuracy,
}


def main() -> None:
    for name in BLOCKED:
        sys.modules[name] = None  # type: ignore[assignment]
    path, data, example = sys.argv[1:]
    with np.load(data) as file:
        arrays = dict(file)
    inputs = {
        name.removeprefix("input."): x for name, x in arrays.items() if name.startswith("input.")
    }
    figure = FIGURES[example](outputs_of(path, inputs), arrays)
    loaded = [name for name in BLOCKED if sys.modules[name] is not None]
    assert not loaded, loaded
    print(json.dumps({"figure": figure, "samples": len(next(iter(inputs.values())))}))


if __name__ == "__main__":
    main()
