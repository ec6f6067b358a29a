"""Our int8 file beside the one that ONNX Runtime's own quantizer writes, interleaved on one thread.

    PENJING_DATA=<folder with data/ and models/> python benchmarks/int8_onnxruntime.py [--json FILE]

Prints a Markdown table; `ratio` is our latency over theirs. What is missing is said in one line.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from penjing.contract import Artifact
from penjing.data import Arrays
from penjing.files import sha256
from penjing.measure.latency import compare
from penjing.network import capture
from penjing.passes.quantize import Quantize
from penjing.runtimes.onnxruntime import OnnxRuntime
from penjing.task import Task

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SAMPLES = 512


class Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut that subsamples and pads channels."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.stride, self.side = stride, (after - before) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.stride > 1:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.side, self.side))
        return functional.relu(y + x)


class CifarResNet(nn.Module):
    """He et al., "Deep Residual Learning", 2015, section 4.2; depth 6 n + 2."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        for stage, (before, after) in enumerate(((16, 16), (16, 32), (32, 64)), start=1):
            first = Residual(before, after, 2 if after > before else 1)
            rest = [Residual(after, after, 1) for _ in range(blocks - 1)]
            self.add_module(f"layer{stage}", nn.Sequential(first, *rest))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def conv_bn(before: int, after: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(before, after, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU6())


class Inverted(nn.Module):
    """Expand, depthwise, project; a shortcut where the shapes allow it."""

    def __init__(self, before: int, after: int, stride: int, expand: int) -> None:
        super().__init__()
        inner = before * expand
        layers: list[nn.Module] = [conv_bn(before, inner, 1)] if expand > 1 else []
        layers.append(conv_bn(inner, inner, 3, stride, inner))
        layers += [nn.Conv2d(inner, after, 1, bias=False), nn.BatchNorm2d(after)]
        self.body, self.shortcut = nn.Sequential(*layers), stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.shortcut else self.body(x)


class MobileNetV2(nn.Module):
    """Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018, table 2."""

    TABLE = (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
        (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    )  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv_bn(3, 32, 3, 2)]
        width = 32
        for expand, after, repeats, stride in self.TABLE:
            for index in range(repeats):
                layers.append(Inverted(width, after, stride if index == 0 else 1, expand))
                width = after
        self.features = nn.Sequential(*layers, conv_bn(width, 1280, 1))
        self.classifier = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def cifar_task(depth: int, folder: Path) -> Task:
    """The trained checkpoint with its data, or FileNotFoundError naming what is missing."""
    from safetensors.torch import load_file

    model = CifarResNet(depth)
    model.load_state_dict(load_file(require(folder / f"models/resnet{depth}_cifar10.safetensors")))
    with np.load(require(folder / "data/cifar10_lossless.npz")) as kept:
        train = Arrays(kept["train_x"], kept["train_y"], mean=MEAN, std=STD)
        test = Arrays(kept["test_x"], kept["test_y"], mean=MEAN, std=STD)
    return Task(model.eval(), next(iter(test))[0][:2], train, test, name=f"ResNet-{depth}")


def mobilenet_task() -> Task:
    """Random weights and inputs: timing only, its accuracy means nothing."""
    torch.manual_seed(0)
    batches = [(torch.randn(8, 3, 224, 224), torch.zeros(8, dtype=torch.long)) for _ in range(2)]
    return Task(MobileNetV2().eval(), batches[0][0][:2], batches, [], name="MobileNetV2 (random)")


def require(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; set PENJING_DATA to the folder that has it")
    return path


def calibration(task: Task) -> Iterator[np.ndarray[Any, Any]]:
    """The inputs that both quantizers see, in batches of at most 64."""
    from penjing.data import first

    for inputs, _ in first(task.train, SAMPLES):
        yield from (part.numpy() for part in inputs.split(64))


def quantize_static(task: Task, fp32: Path, path: Path) -> Artifact:
    """What a user would do: ONNX Runtime's preprocessing and its static QDQ quantizer."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as quantize
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = calibration(task)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"input": batch}

    prepared = path.with_suffix(".prepared.onnx")
    quant_pre_process(str(fp32), str(prepared))
    quantize(
        str(prepared), str(path), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    return Artifact(path, "onnxruntime", path.stat().st_size, sha256(path))


def accuracy(task: Task, session: Any) -> float | None:
    hits = [session.run(x.numpy()).argmax(1) == y.numpy() for x, y in task.test]
    return float(np.mean(np.concatenate(hits))) if hits else None


def rows_of(task: Task, seconds: float) -> list[dict[str, Any]]:
    """One row each for fp32, ONNX Runtime's int8 and ours."""
    runtime, network = OnnxRuntime(), capture(task.model, task.example)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        files = {"fp32": runtime.lower(network, place / "fp32.onnx")}
        files["quantize_static"] = quantize_static(task, files["fp32"].path, place / "theirs.onnx")
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
    folder = Path(os.environ.get("PENJING_DATA", "."))
    makers = {
        "ResNet-20": lambda: cifar_task(20, folder),
        "ResNet-56": lambda: cifar_task(56, folder),
        "MobileNetV2": mobilenet_task,
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
