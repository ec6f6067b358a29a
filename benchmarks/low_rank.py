"""Low rank: what layers of factors keep, and where they are faster.

    PENJING_DATA=FOLDER python benchmarks/low_rank.py [--json FILE] [--only PART ...]

Four parts:

- untuned: ResNet-20 on the lossless CIFAR-10 images, by scheme and basis at 1.5, 2 and 3 times
  fewer MACs, each as it is and with its last factors solved again. Nothing is trained.
- tuned: ResNet-20 on the JPEG-compressed images at half the MACs after `--epochs` of distilled
  training: accuracy on the test images with a bound on what is lost, and the time of the ONNX file
  relative to the original's, in float32 and in int8, measured side by side.
- alone: single layers with random weights, as in AlexNet, VGG and wider ones: the ratio of time in
  ONNX Runtime, one thread, by scheme and rank, and the largest rank that is faster.
- by_time: ResNet-20 again, where a layer is taken only if its factors were measured to be faster,
  in float32 and in int8: what the file takes, and what the network keeps once its last factors are
  solved again. Nothing is trained.

Times are worth something only on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from data_folder import data_folder
from harness import progress, scores_of, table
from kept_without_tuning import accuracy
from networks import cifar_task, jpeg_task
from torch import nn

from penjing.arith.kernel_factors import SCHEMES, full_ranks, why_not
from penjing.errors import InputError
from penjing.measure.costs import costs
from penjing.measure.latency import compare
from penjing.measure.scores import drop
from penjing.network import Network, capture
from penjing.passes import Compensate, Factorize, Quantize, Tune
from penjing.passes.structure.channels.budget import Budget
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.targets import this_machine
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task
from penjing.tools.alternatives import alternatives_table
from penjing.tune.options import TuneOptions

Row = dict[str, Any]
FEWER = (1.5, 2.0, 3.0)
WAYS = (
    ("auto", "inputs"), ("auto", "weights"), ("spatial", "inputs"), ("spatial", "weights"),
    ("tucker", "inputs"), ("tucker", "weights"), ("channel", "inputs"), ("channel", "weights"),
    ("channel", "outputs"),
)  # fmt: skip
"""The schemes and bases that the first part compares."""
SHARES = (0.5, 0.33, 0.25, 0.17, 0.12, 0.06)
"""The shares of the full rank that the third part times."""


@dataclass(frozen=True)
class Single:
    """A layer by itself.

    Attributes:
        name: where it is from.
        layer: the layer.
        shape: of its input, for one sample.
    """

    name: str
    layer: nn.Module
    shape: tuple[int, ...]


def singles() -> list[Single]:
    """Convolutions of 64 to 512 channels, and the large linear layers of AlexNet and VGG-16."""
    convolutions = [
        Single(f"3x3, {width} channels, {side}x{side}", nn.Conv2d(width, width, 3, 1, 1),
               (width, side, side))
        for width, side in ((64, 56), (128, 28), (256, 14), (512, 7), (64, 8), (512, 14))
    ]  # fmt: skip
    return [
        *convolutions,
        Single("AlexNet conv2, 5x5", nn.Conv2d(64, 192, 5, padding=2), (64, 27, 27)),
        Single("1x1, 512 channels, 14x14", nn.Conv2d(512, 512, 1), (512, 14, 14)),
        Single("AlexNet fc6", nn.Linear(9216, 4096), (9216,)),
        Single("AlexNet fc7", nn.Linear(4096, 4096), (4096,)),
        Single("linear 1024", nn.Linear(1024, 1024), (1024,)),
    ]


def macs(network: Network) -> int:
    return sum(layer.macs for layer in costs(network))


def untuned(folder: Path, images: int | None, samples: int) -> Iterator[Row]:
    """The first part, row by row."""
    task = _fewer(cifar_task(20, folder), images)
    network = capture(task.model, task.example)
    yield {"scheme": "original", "basis": "", "fewer": 1.0, "factors": accuracy(network, task)}
    for scheme, basis in WAYS:
        for fewer in FEWER:
            step = Factorize(
                budget=Budget("macs", 1 / fewer), scheme=scheme, basis=basis, samples=samples
            )
            row: Row = {"scheme": scheme, "basis": basis, "fewer": fewer}
            try:
                made = step(network, task)
            except InputError as error:
                yield row | {"why": str(error)}
                continue
            solved = Compensate(samples)(made, task)
            yield row | {
                "measured": round(macs(network) / macs(made), 3),
                "factors": accuracy(made, task), "compensated": accuracy(solved, task),
            }  # fmt: skip


def tuned(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    """The second part: the original and its factors, in float32 and in int8."""
    task = _fewer(jpeg_task(20, folder), options.images)
    network = capture(task.model, task.example)
    step = Factorize(
        budget=Budget("macs", options.share), scheme=options.scheme, multiple=options.multiple,
        samples=options.samples,
    )  # fmt: skip
    print(step.plan(network, task))
    train = TuneOptions(epochs=options.epochs, lr=0.05, distill=0.9, temperature=4.0)
    made = Tune(train)(step(network, task), task, progress("tuning"))
    rounding = Quantize(samples=options.samples)
    known = {
        "float32": (network, made), "int8": (rounding(network, task), rounding(made, task)),
    }  # fmt: skip
    right, _ = scores_of(network, task)
    for precision, (before, after) in known.items():
        time = _times({"original": before, "factors": after}, task.example[:1], options.seconds)
        for name, one in (("original", before), ("factors", after)):
            found, size = scores_of(one, task)
            lost = drop(right, found)
            yield {
                "file": f"{name}, {precision}", "accuracy": 100 * float(found.mean()),
                "points lost": lost.drop, "at most": lost.bound, "bytes": size,
                "fewer": round(macs(network) / macs(made), 3) if one is after else 1.0,
                **time[name],
            }  # fmt: skip


def alone(options: argparse.Namespace) -> Iterator[Row]:
    """The third part: for each layer and scheme, the ratio of time by rank."""
    for single in singles():
        torch.manual_seed(0)
        x = torch.randn(2, *single.shape)
        network = capture(single.layer.eval(), x)
        for scheme in SCHEMES:
            shape = single.layer.get_parameter("weight").shape
            if why_not(scheme, shape):
                continue
            networks = {"original": network}
            for part in SHARES[: options.ranks]:
                ranks = [max(1, round(part * rank)) for rank in full_ranks(scheme, shape)]
                networks[f"{part}"] = capture(_factors(single.layer, scheme, ranks).eval(), x)
            found = _times(networks, x[:1], options.seconds)
            faster = [share for share in found if share != "original"]
            faster = [share for share in faster if found[share]["high"] < 1]
            for share, factors in list(networks.items())[1:]:
                yield {
                    "layer": single.name, "scheme": scheme, "rank share": float(share),
                    "fewer": round(macs(network) / macs(factors), 2),
                    "original ms": found["original"]["ms"], **found[share],
                    "pays up to": max(map(float, faster), default=None),
                }  # fmt: skip


def by_time(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    """The fourth part: ranks by measured time, for each precision and share of the latency."""
    task = _fewer(cifar_task(20, folder), options.images)
    network = capture(task.model, task.example)
    rounding = Quantize(samples=options.samples)
    for precision in ("float32", "int8"):
        finish = (lambda made: rounding(made, task)) if precision == "int8" else (lambda made: made)
        try:
            times = alternatives_table(network, this_machine(), finish=finish)
        except InputError as error:  # it doesn't add up, on a machine that does something else
            yield {"precision": precision, "why": str(error)}
            continue
        for share in (0.9, 0.8, 0.7):
            row: Row = {"precision": precision, "share": share}
            multiple = this_machine().width_multiple  # as in the table
            budget = Budget("latency", share, times)
            step = Factorize(budget=budget, multiple=multiple, samples=options.samples)
            try:
                plan = step.plan(network, task)
            except InputError as error:
                yield row | {"why": str(error)}
                continue
            made = Compensate(options.samples)(step.apply(network, plan, task), task)
            files = {"original": finish(network), "factors": finish(made)}
            time = _times(files, task.example[:1], options.seconds)["factors"]
            yield row | {
                "layers": len(plan.parts or ()), "fewer": round(macs(network) / macs(made), 3),
                "accuracy": accuracy(files["factors"], task), **time,
            }  # fmt: skip


def _factors(layer: nn.Module, scheme: str, ranks: list[int]) -> nn.Module:
    """The layers that a layer becomes, with random weights: times don't depend on them."""
    rank = ranks[0]
    if isinstance(layer, nn.Linear):
        return nn.Sequential(
            nn.Linear(layer.in_features, rank, bias=False), nn.Linear(rank, layer.out_features)
        )
    assert isinstance(layer, nn.Conv2d)
    inputs, outputs, side = layer.in_channels, layer.out_channels, layer.kernel_size[0]
    if scheme == "spatial":
        return nn.Sequential(
            nn.Conv2d(inputs, rank, (side, 1), padding=(side // 2, 0), bias=False),
            nn.Conv2d(rank, outputs, (1, side), padding=(0, side // 2)),
        )
    first = [nn.Conv2d(inputs, rank, 1, bias=False)] if scheme == "tucker" else []
    before = rank if scheme == "tucker" else inputs
    middle = nn.Conv2d(before, ranks[-1], side, padding=side // 2, bias=False)
    return nn.Sequential(*first, middle, nn.Conv2d(ranks[-1], outputs, 1))


def _times(networks: dict[str, Network], inputs: Any, seconds: float) -> dict[str, Row]:
    """The time of each file relative to the file called "original", measured side by side."""
    runtime = OnnxRuntime()
    with tempfile.TemporaryDirectory() as folder:
        sessions = {
            name: runtime.load(runtime.lower(network, Path(folder) / f"{place}.onnx"))
            for place, (name, network) in enumerate(networks.items())
        }
        times = compare(sessions, inputs.numpy(), "original", seconds)
    return {
        name: {
            "ms": round(time.latency_ms, 4), "ratio": round(time.ratio, 3),
            "low": round(time.ratio_low, 3), "high": round(time.ratio_high, 3),
            "disturbed": time.disturbed,
        }
        for name, time in times.items()
    }  # fmt: skip


def _fewer(task: Task, images: int | None) -> Task:
    """The same task with fewer images, to try the benchmark."""
    if images is None:
        return task
    both = cast(tuple[Arrays, Arrays], (task.train, task.test))
    train, test = (data.subset(range(images)) for data in both)
    return dataclasses.replace(task, train=train, test=test)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="*", default=["untuned", "tuned", "alone", "by_time"])
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--share", type=float, default=0.5, help="of the MACs that remain, tuned")
    parser.add_argument("--scheme", default="auto", help="of the tuned network")
    parser.add_argument("--multiple", type=int, default=4, help="of the tuned network's ranks")
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--images", type=int, help="so many of the images only, to try it")
    parser.add_argument("--ranks", type=int, default=len(SHARES), help="ranks to time, alone")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = data_folder()
    parts = {
        "untuned": lambda: untuned(folder, options.images, options.samples),
        "tuned": lambda: tuned(folder, options),
        "alone": lambda: alone(options),
        "by_time": lambda: by_time(folder, options),
    }
    found: dict[str, list[Row]] = {}
    for name in options.only:
        rows = found.setdefault(name, [])
        try:
            for row in parts[name]():
                rows.append(row)
                if options.json:  # what is done is kept if the rest is cut off
                    options.json.write_text(json.dumps(found, indent=1))
        except FileNotFoundError as error:
            print(f"skipped {name}: {error}")
        columns = list(dict.fromkeys(column for row in rows for column in row))
        print(table(rows, columns, _cell), end="\n\n")


def _cell(column: str, value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) and column != "ratio" else str(value)


if __name__ == "__main__":
    main()
