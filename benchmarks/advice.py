"""What `penjing advise` says of four networks on three devices.

    PENJING_DATA=FOLDER python benchmarks/advice.py [--minutes 2] [--keep FILE] [--json FILE]
        [--tasks ViT,...] [--targets cpu,...]

ResNet-20 on the JPEG images, the digits example, a small vision transformer that is trained here on
the same images for two epochs (--keep keeps its weights), and an MLP with random weights; for this
machine, for an NPU whose compiler estimates cycles, and for a Raspberry Pi that isn't here. Prints
what the command prints. Then a table: each method's verdict, and what its file takes of the time of
the first one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from data_folder import data_folder
from harness import table
from networks import jpeg_task
from safetensors.torch import load_file, save_file
from torch import nn
from vit_blocks import SmallViT, trained

from penjing.cli.advise import spelled
from penjing.report.advice import advice_lines
from penjing.search.advice.advise import advise
from penjing.search.advice.outlook import Advice
from penjing.tasks.data import Arrays
from penjing.tasks.reference import find_task
from penjing.tasks.task import Task

TARGETS = ("cpu", "arm-corstone-300", "raspberry-pi-5")
EPOCHS, WIDTH = 2, 120
Row = dict[str, Any]


def vit(keep: Path | None) -> Task:
    """The transformer, trained here unless its weights were kept."""
    data = jpeg_task(20, data_folder())
    assert isinstance(data.train, Arrays)
    data.train.batch_size = 128
    if keep and keep.exists():
        model: nn.Module = SmallViT().eval()
        model.load_state_dict(load_file(keep))
    else:
        model = trained(data, EPOCHS)
        if keep:
            save_file(model.state_dict(), keep)
    return Task(model, data.example, data.train, data.test, name="small ViT")


def random_mlp() -> Task:
    """Weights, samples and labels at random: nothing was learnt that could be lost."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    )
    train, test = (Arrays(torch.randn(n, 64), torch.randint(10, (n,))) for n in (2000, 1000))
    return Task(model.eval(), train.x[:2], train, test, name="random MLP")


def row(task: str, target: str, advice: Advice) -> list[Row]:
    """A row for each method."""
    return [
        {
            "task": task, "target": target, "method": outlook.title, "verdict": outlook.verdict,
            "share": outlook.figures.speed if outlook.figures else None, "of": advice.speed,
            "kB": outlook.figures.file_bytes / 1e3 if outlook.figures else None,
            "lost": outlook.figures.lost if outlook.figures else None,
            "after training": outlook.expected,
        }
        for outlook in advice.outlooks
    ]  # fmt: skip


def cell(_: str, value: Any) -> str:
    return "" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=2.0, help="for each network and device")
    parser.add_argument("--keep", type=Path, help="the transformer's weights")
    parser.add_argument("--tasks", default="ResNet-20,digits,ViT,random MLP")
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    makers: dict[str, Callable[[], Task]] = {
        "ResNet-20": lambda: jpeg_task(20, data_folder()),
        "digits": lambda: find_task("digits"),
        "ViT": lambda: vit(options.keep),
        "random MLP": random_mlp,
    }
    rows: list[Row] = []
    for name in options.tasks.split(","):
        task = makers[name]()
        for target in options.targets.split(","):
            advice = advise(task, target, options.minutes)
            print(f"\n## {name} for {target}, after {advice.seconds:.0f} s\n", flush=True)
            for line in advice_lines(advice, spelled(advice.recommended, "TASK"), WIDTH):
                print(line if isinstance(line, str) else line[0])
            rows += row(name, target, advice)
    print(table(rows, list(rows[0]), cell))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
