"""Our int8 file beside the one that ONNX Runtime's own quantizer writes, interleaved on one thread.

    PENJING_DATA=<folder with data/ and models/> python benchmarks/int8_onnxruntime.py [--json FILE]

Prints a Markdown table; `ratio` is our latency over theirs. What is missing is said in one line.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_folder import data_folder
from networks import cifar_task, mobilenet_task, vit_task
from peers import SAMPLES, calibration, quantize_static

from penjing.measure.latency import compare
from penjing.network import capture
from penjing.passes.rounding.quantize import Quantize
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.tasks.task import Task


def accuracy(task: Task, session: Any) -> float | None:
    hits = [session.run(x.numpy()).argmax(1) == y.numpy() for x, y in task.test]
    return float(np.mean(np.concatenate(hits))) if hits else None


def rows_of(task: Task, seconds: float) -> list[dict[str, Any]]:
    """One row each for fp32, ONNX Runtime's int8 and ours."""
    runtime, network = OnnxRuntime(), capture(task.model, task.example)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        quantize_static(task, place)  # writes theirs.onnx
        files = {
            "fp32": runtime.lower(network, place / "fp32.onnx"),
            "quantize_static": runtime.artifact(place / "theirs.onnx"),
        }
        quantized = Quantize(samples=SAMPLES)(network, task)
        files["penjing Quantize"] = runtime.lower(quantized, place / "ours.onnx")
        sessions = {name: runtime.load(one) for name, one in files.items()}
        one = next(calibration(task))[:1]
        times = compare(sessions, one, "quantize_static", seconds)
        return [
            {
                "model": task.name,
                "file": name,
                "latency_ms": times[name].latency_ms,
                "ratio": times[name].ratio,
                "ratio_low": times[name].ratio_low,
                "ratio_high": times[name].ratio_high,
                "accuracy": accuracy(task, session),
                "file_bytes": files[name].file_bytes,
            }
            for name, session in sessions.items()
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seconds", type=float, default=20.0, help="of timing for each model")
    parser.add_argument("--only", default="", help="part of a model's name")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = data_folder()
    makers = {
        "ResNet-20": lambda: cifar_task(20, folder),
        "ResNet-56": lambda: cifar_task(56, folder),
        "MobileNetV2": mobilenet_task,
        "ViT-Tiny": vit_task,
    }
    rows = []
    for name, make in makers.items():
        if options.only in name:
            try:
                rows += rows_of(make(), options.seconds)
            except FileNotFoundError as error:
                print(f"skipped {name}: {error}")
    print("| model | file | latency_ms | ratio | interval (99 %) | accuracy | file_bytes |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        score = "-" if row["accuracy"] is None else f"{row['accuracy']:.4f}"
        print(
            f"| {row['model']} | {row['file']} | {row['latency_ms']:.3f} | {row['ratio']:.3f} "
            f"| {row['ratio_low']:.3f} - {row['ratio_high']:.3f} | {score} | {row['file_bytes']} |"
        )
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
