"""ResNet-20 on CIFAR-10. Run `PENJING_DATA=FOLDER penjing fit examples/cifar10_resnet20.py`.

FOLDER must contain data/cifar10-jpeg.tar.xz and models/resnet20_cifar10_jpeg.safetensors.
"""

import io
import os
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from penjing.errors import InputError
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters (He et al., 2015, option A)."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.stride, self.grown = (1, 0) if before == width else (2, width - before)
        self.conv1 = nn.Conv2d(before, width, 3, self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x_NCHW to y_NKHW. Height and width are halved if channels are added."""
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        if self.grown:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, *[self.grown // 2] * 2))
        return (x + y).relu()


class ResNet20(nn.Module):
    """Nine blocks in three stages with 16, 32 and 64 channels (He et al., 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(Block(16, 16), Block(16, 16), Block(16, 16))
        self.layer2 = nn.Sequential(Block(16, 32), Block(32, 32), Block(32, 32))
        self.layer3 = nn.Sequential(Block(32, 64), Block(64, 64), Block(64, 64))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images x_N3HW (32 x 32) to y_NK, the logits of ten classes."""
        x = self.bn1(self.conv1(x)).relu()
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def pixels(archive: Path) -> dict[str, np.ndarray]:
    """All images as uint8. They are decoded once, and cached by the archive's size and date."""
    stat, home = archive.stat(), os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = Path(home) / "penjing" / f"cifar10-jpeg-{stat.st_size}-{int(stat.st_mtime)}.npz"
    if cache.is_file():
        with np.load(cache) as file:
            return dict(file)
    print(f"decoding {archive.name} once, which takes about 10 s", file=sys.stderr, flush=True)
    with tarfile.open(archive) as tar, ThreadPoolExecutor() as pool:
        found = {
            one.name: file.read()
            for one in tar
            if one.isfile() and (file := tar.extractfile(one)) is not None
        }
        names = sorted(found)
        images = pool.map(lambda name: np.asarray(Image.open(io.BytesIO(found[name]))), names)
        x = np.stack(list(images)).transpose(0, 3, 1, 2)
    y = np.unique([name.split("/")[1] for name in names], return_inverse=True)[1]
    split = np.array([name.split("/")[0] for name in names])
    arrays = {
        f"{part}_{key}": value[split == part]
        for part in ("train", "test")
        for key, value in (("x", x), ("y", y))
    }
    partial = cache.with_name(f"{os.getpid()}-{cache.name}")
    cache.parent.mkdir(parents=True, exist_ok=True)
    np.savez(partial, **arrays)
    partial.replace(cache)
    return arrays


def task() -> Task:
    """The trained network and its data, from the folder in the variable `PENJING_DATA`."""
    folder = os.environ.get("PENJING_DATA")
    if not folder:
        raise InputError(
            "PENJING_DATA isn't set; run export PENJING_DATA=FOLDER, where FOLDER contains data/ "
            "and models/"
        )
    archive = Path(folder, "data", "cifar10-jpeg.tar.xz")
    weights = Path(folder, "models", "resnet20_cifar10_jpeg.safetensors")
    for path in (archive, weights):
        if not path.is_file():
            raise InputError(f"{path} is missing; PENJING_DATA must contain data/ and models/")
    model, data = ResNet20().eval(), pixels(archive)
    model.load_state_dict(load_file(weights))
    test = Arrays(data["test_x"], data["test_y"], mean=MEAN, std=STD)
    train = Arrays(
        data["train_x"], data["train_y"], mean=MEAN, std=STD, augment="flip-crop", shuffle=True
    )
    return Task(model, next(iter(test))[0][:2], train, test, name="cifar10-resnet20")
