"""The memory that a fit's data takes, and how long it takes to read, check and split it.

    python benchmarks/data_memory.py [--images 100000] [--json FILE]

JPEGs of 224 x 224 are generated in a temporary folder, of ten classes: so many for training and a
twentieth of that for the test. There are 400 different ones for training and 40 for the test; each
file is a copy of one with a number of its quantization table changed, so that no two decode to the
same pixels. They are of smooth colours under noise, and have about 12 kB.

A process of its own then begins a fit, without validation data: of an `ImageFolder`, and of a
shuffled `DataLoader` whose dataset opens the files with Pillow and flips them at random. It ends
once the fit comes to its first stage, the original's measurement. `peak` is the most memory that
the process had until then, in MB, and `libraries` what it had before there was any data. `seconds`
passed from the data's first line to that stage.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import progress, table
from PIL import Image
from process_each import Row, in_process
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import penjing
from penjing.trials.contract import MEASURING

SIDE = 224
CLASSES = 10
DIFFERENT = {"train": 400, "test": 40}
COLUMNS = ("data", "images", "peak MB", "libraries MB", "seconds")
KINDS = ("ImageFolder", "DataLoader")
LIMIT = 3600.0  # seconds of one process


def jpeg(draw: np.random.Generator) -> bytes:
    """Smooth colours under noise."""
    coarse = Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((SIDE, SIDE)), np.float32)
    pixels = np.clip(smooth + draw.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=85)
    return file.getvalue()


def changed(content: bytes, number: int) -> bytes:
    """The same JPEG with a number of its first quantization table changed, by its number."""
    made, begin = bytearray(content), content.index(b"\xff\xdb") + 5
    made[begin + 1 + number % 63] = min(255, made[begin + 1 + number % 63] + 1 + number // 63)
    return bytes(made)


def generate(root: Path, images: int) -> int:
    """Write the files, and return how many bytes they have."""
    draw, say, size = np.random.default_rng(0), progress("generating"), 0
    for split, count in (("train", images), ("test", max(200, images // 20))):
        originals = [jpeg(draw) for _ in range(DIFFERENT[split])]
        for label in range(CLASSES):
            (root / split / str(label)).mkdir(parents=True)
        for number in range(count):
            repeated, which = divmod(number, len(originals))
            content = changed(originals[which], repeated)
            (root / split / str(number % CLASSES) / f"{number:06}.jpg").write_bytes(content)
            size += len(content)
            if number % 1000 == 0:
                say(split, number / count)
    return size


class Files(Dataset[tuple[Tensor, int]]):
    """Images that are opened one by one, flipped at random if wanted, as many users write it."""

    def __init__(self, root: Path, flip: bool) -> None:
        self.files = sorted(str(file) for file in root.glob("*/*.jpg"))
        self.flip = flip

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        file = self.files[place]
        with Image.open(file) as image:
            pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
        if self.flip and torch.rand(()) < 0.5:
            pixels = pixels.flip(2)
        return pixels / 255, int(os.path.basename(os.path.dirname(file)))


def data_of(kind: str, root: Path) -> Iterator[Any]:
    """The training and the test data."""
    for split in ("train", "test"):
        train = split == "train"
        if kind == "ImageFolder":
            augment = "flip-crop" if train else None
            yield penjing.ImageFolder(root / split, size=SIDE, augment=augment, shuffle=train)
        else:
            yield DataLoader(Files(root / split, flip=train), batch_size=64, shuffle=train)


def memory(kind: str) -> float:
    """The memory of this process in MB: `VmRSS` now, `VmHWM` at most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(kind))) * 1024 / 1e6


class Reached(Exception):
    """The fit has come to its first stage."""


def examine(kind: str, root: Path) -> Row:
    """Begin a fit, and end it at its first stage."""
    libraries, begin = memory("VmRSS"), time.monotonic()
    train, test = data_of(kind, root)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 7, stride=4), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES),
    ).eval()  # fmt: skip
    task = penjing.Task(model, torch.rand(2, 3, SIDE, SIDE), train, test, name=kind)
    say = progress(kind)

    def watch(stage: str, share: float, result: penjing.Result) -> None:
        say(stage, share)
        if stage == MEASURING:
            raise Reached

    options = penjing.FitOptions(progress=watch, cache=None)
    with tempfile.TemporaryDirectory() as out:
        try:
            penjing.fit(task, out=Path(out) / "fitted", options=options)
        except Reached:
            images = sum(1 for _ in root.glob("train/*/*"))
            return {
                "data": kind, "images": images, "peak MB": memory("VmHWM"),
                "libraries MB": libraries, "seconds": time.monotonic() - begin,
            }  # fmt: skip
    raise AssertionError("the fit has no first stage")


def cell(column: str, value: Any) -> str:
    return f"{value:,.0f}" if isinstance(value, float | int) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(examine(options.one, options.root)), flush=True)
        return
    with tempfile.TemporaryDirectory() as root:
        size = generate(Path(root), options.images)
        rows = [in_process(__file__, kind, LIMIT, ["--root", root]) for kind in KINDS]
    print(table(rows, COLUMNS, cell))
    print(f"\n{size / 1e9:.2f} GB of JPEGs")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    if any("error" in row for row in rows):
        sys.exit("\n".join(row["error"] for row in rows if "error" in row))


if __name__ == "__main__":
    main()
