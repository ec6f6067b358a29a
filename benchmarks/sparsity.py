"""What a network keeps when single weights become zero, and what the zeros are worth.

    PENJING_DATA=FOLDER python benchmarks/sparsity.py [--only PART] [--epochs N] [--json FILE]

Parts: "lossless" is ResNet-20 on the lossless CIFAR-10 images at 50, 70, 80 and 90 % zeros, nothing
trained: magnitude, magnitude with the batch norms recalibrated, taylor, obs, and obs with the rest
solved by `Compensate`. "jpeg" removes 90 % of ResNet-20 on the JPEG images and tunes it for
--epochs. "openvino" times int8 linear layers, dense and sparse, with OpenVINO's option for sparse
weights. "vela" reads the bytes of the compressed weights of a small network off the compiler of
Ethos-U. The last two are skipped if the runtime isn't installed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_folder import data_folder
from harness import progress
from kept_without_tuning import accuracy
from networks import cifar_task, jpeg_task
from torch import nn

from penjing.network import Network, capture
from penjing.passes import Compensate, Quantize, Sparsify, Tune
from penjing.tasks.data import Arrays, first
from penjing.tasks.task import Task
from penjing.tune.options import TuneOptions
from penjing.tune.recalibrate import recalibrate

Row = dict[str, Any]
SPARSITIES = (0.5, 0.7, 0.8, 0.9)
SAMPLES = 1024
RAMP = (0.7, 0.8, 0.86, 0.9)
"""The sparsities between which a network is tuned, if it is tuned between."""


def zeros(network: Network) -> float:
    """The share of zeros among the weights of convolutions and linear layers."""
    wide = [tensor for tensor in network.parameters() if tensor.dim() > 1]
    return sum(int((one == 0).sum()) for one in wide) / sum(one.numel() for one in wide)


def lossless(folder: Path, sparsities: tuple[float, ...], steps: int) -> Iterator[Row]:
    """ResNet-20 without training; the first convolution and the last layer stay dense."""
    task = cifar_task(20, folder)
    network = capture(task.model, task.example)
    yield {"part": "lossless", "method": "original", "accuracy": accuracy(network, task)}

    for sparsity in sparsities:
        for method, sparse in _methods(network, task, sparsity, steps):
            yield {
                "part": "lossless", "method": method, "sparsity": sparsity,
                "zeros": round(zeros(sparse), 4), "accuracy": accuracy(sparse, task),
            }  # fmt: skip


def _methods(
    network: Network, task: Task, sparsity: float, steps: int
) -> Iterator[tuple[str, Network]]:
    """The network with so many zeros by each method, one after the other."""

    def with_norms(sparse: Network) -> Network:
        return recalibrate(sparse, first(task.train, SAMPLES))

    by_size = Sparsify(sparsity, "l1", ends=0)(network, task)
    yield "magnitude", by_size
    yield "magnitude, recalibrated", with_norms(by_size)
    by_gradient = Sparsify(sparsity, "taylor", steps=steps, ends=0)(network, task)
    yield "taylor, recalibrated", with_norms(by_gradient)
    surgeon = Sparsify(sparsity, "obs", steps=steps, ends=0)(network, task, progress("obs"))
    yield "obs", surgeon
    yield "obs, recalibrated", with_norms(surgeon)
    yield "obs, Compensate", Compensate(SAMPLES, 20_000)(surgeon, task, progress("Compensate"))


def jpeg(folder: Path, epochs: float, steps: int, images: int | None) -> Iterator[Row]:
    """ResNet-20 on the JPEG images: 90 % removed, tuned with distillation at the end or between."""
    task = jpeg_task(20, folder)
    if images:
        train, test = (
            Arrays(data.x[:images], data.y[:images], mean=data.mean, std=data.std)
            for data in (task.train, task.test)
            if isinstance(data, Arrays)
        )
        task = Task(task.model, task.example, train, test, name=task.name)
    assert isinstance(task.train, Arrays)
    task.train.augment, task.train.shuffle = "flip-crop", True
    network = capture(task.model, task.example)
    base = accuracy(network, task)
    yield {"part": "jpeg", "method": "original", "accuracy": base}
    sparse = Sparsify(0.9, steps=steps, ends=0)(network, task, progress("obs"))
    solved = Compensate(SAMPLES, 20_000)(sparse, task, progress("Compensate"))
    tune = Tune(TuneOptions(epochs=epochs, lr=0.05, temperature=4.0, device="cpu"))
    tuned = tune(solved, task, progress("Tune"))
    part = Tune(TuneOptions(epochs=epochs / len(RAMP), lr=0.05, temperature=4.0, device="cpu"))
    ramped = network
    for sparsity in RAMP:
        ramped = Sparsify(sparsity, steps=1, ends=0)(ramped, task, progress(f"obs, {sparsity:.0%}"))
        ramped = part(ramped, task, progress(f"Tune at {sparsity:.0%}"))
    for method, found in {
        "obs": sparse, "obs, Compensate": solved, f"and tuned {epochs:g} epochs": tuned,
        f"removed in {len(RAMP)} steps within {epochs:g} epochs": ramped,
    }.items():  # fmt: skip
        score = accuracy(found, task)
        yield {
            "part": "jpeg", "method": method, "sparsity": 0.9, "zeros": round(zeros(found), 4),
            "accuracy": score, "points": round(score - base, 2),
        }  # fmt: skip


def _linear_task(width: int) -> Task:
    """A stack of wide linear layers with random weights, for time alone."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *[layer for _ in range(4) for layer in (nn.Linear(width, width), nn.ReLU())]
    )
    data = Arrays(torch.randn(64, width), torch.zeros(64, dtype=torch.long))
    return Task(model.eval(), data.x[:2], data, data)


def openvino(width: int = 2048, repeats: int = 200) -> Iterator[Row]:
    """The time of int8 linear layers in OpenVINO: dense, and sparse with its option.

    The option CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE gives the share of zeros from which a layer's
    weights are packed. It needs AMX; where the processor lacks that, it changes nothing.
    """
    import openvino as ov

    from penjing.runtimes.onnx.runtime import OnnxRuntime

    task = _linear_task(width)
    quantize = Quantize(samples=64)
    with tempfile.TemporaryDirectory() as folder:
        compiled = {}
        for share in (0.0, 0.5, 0.8, 0.9):
            network = capture(task.model, task.example)
            if share:
                network = Sparsify(share, "l1", "layer", ends=1)(network, task)
            file = OnnxRuntime().lower(quantize(network, task), Path(folder) / f"{share}.onnx")
            core = ov.Core()
            for rate in (1.0, 0.5):
                options = {
                    "INFERENCE_NUM_THREADS": 1,
                    "CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE": rate,
                }
                model = core.compile_model(str(file.path), "CPU", options)
                compiled[share, rate] = model.create_infer_request()
        inputs = np.random.default_rng(0).normal(size=(1, width)).astype(np.float32)
        took: dict[tuple[float, float], list[float]] = {key: [] for key in compiled}
        for _ in range(repeats):  # in turn, so that all see the same machine
            for key, request in compiled.items():
                begin = time.perf_counter()
                request.infer([inputs])
                took[key].append(time.perf_counter() - begin)
    for (share, rate), seconds in took.items():
        yield {
            "part": "openvino", "method": "option off" if rate == 1 else "option from 50 %",
            "sparsity": share, "latency_ms": 1000 * statistics.median(seconds),
        }  # fmt: skip


def vela() -> Iterator[Row]:
    """The flash that Ethos-U's compiler needs for a small network; it packs the weights."""
    from penjing.runtimes.ethosu.by_tflite import EthosU
    from penjing.runtimes.tflite.export import to_tflite

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(64, 10),
    ).eval()  # fmt: skip
    data = Arrays(torch.randn(32, 3, 16, 16), torch.arange(32) % 10)
    task = Task(model, data.x[:2], data, data)
    runtime, quantize = EthosU("ethos-u55-128"), Quantize(samples=32, **EthosU.constraints)
    for share in (0.0, 0.5, 0.8, 0.9):
        network = capture(task.model, task.example)
        if share:
            network = Sparsify(share, "l1", "layer", ends=1)(network, task)
        with tempfile.TemporaryDirectory() as folder:
            content = to_tflite(quantize(network, task))
            file = runtime.compile(content, Path(folder) / f"model{runtime.ending}")
            flash = runtime.estimate(file).flash_bytes
        yield {"part": "vela", "sparsity": share, "flash_bytes": flash}


def table(rows: list[Row]) -> str:
    """The rows of each part, with the columns that it has."""
    lines = []
    for part in dict.fromkeys(row["part"] for row in rows):
        mine = [row for row in rows if row["part"] == part]
        columns = [
            key for key in dict.fromkeys(key for row in mine for key in row) if key != "part"
        ]
        lines += ["", f"{part}:", "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
        for row in mine:
            cells = (row.get(key, "") for key in columns)
            texts = (f"{one:.2f}" if isinstance(one, float) else str(one) for one in cells)
            lines.append("| " + " | ".join(texts) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", default="", help="one part")
    parser.add_argument("--epochs", type=float, default=0, help="of the part jpeg; 0 leaves it out")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--sparsities", type=float, nargs="+", default=SPARSITIES)
    parser.add_argument("--images", type=int, help="of the part jpeg, to try it in miniature")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = data_folder()
    parts: dict[str, Callable[[], Iterator[Row]]] = {
        "lossless": lambda: lossless(folder, tuple(options.sparsities), options.steps),
        "openvino": openvino,
        "vela": vela,
    }
    if options.epochs:
        parts["jpeg"] = lambda: jpeg(folder, options.epochs, options.steps, options.images)
    rows: list[Row] = []
    for name, make in parts.items():
        if options.only not in ("", name):
            continue
        try:
            for row in make():
                rows.append(row)
                print(row, flush=True)
        except (FileNotFoundError, ImportError) as error:
            print(f"skipped {name}: {error}")
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
