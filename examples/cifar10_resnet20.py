"""ResNet-20 on CIFAR-10. Run `PENJING_DATA=FOLDER penjing fit examples/cifar10_resnet20.py`.

FOLDER has data/cifar10-jpeg.tar.xz and models/resnet20_cifar10_jpeg.safetensors.
"""

import os
import sys
import tarfile
import tempfile
from functools import partial
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import pad

import penjing


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters (He et al., 2015, option A)."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.stride, self.grown = (1, 0) if before == width else (2, width - before)
        self.conv1 = nn.Conv2d(before, width, 3, self.stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map x_NCHW to y_NKHW. Height and width are halved if channels are added."""
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        if self.grown:
            x = pad(x[:, :, ::2, ::2], (0, 0, 0, 0, *[self.grown // 2] * 2))
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

    def forward(self, x: Tensor) -> Tensor:
        """Map images x_N3HW (32 x 32) to y_NK, the logits of ten classes."""
        x = self.bn1(self.conv1(x)).relu()
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def unpacked(archive: Path) -> Path:
    """The folder of the archive's images, in the user's cache. They are unpacked once."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "penjing")
    folder = cache / f"cifar10-jpeg-{archive.stat().st_size}-{int(archive.stat().st_mtime)}"
    if not folder.is_dir():
        print(f"unpacking {archive.name} once, which takes about 20 s", file=sys.stderr)
        cache.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as tar, tempfile.TemporaryDirectory(dir=cache) as beside:
            tar.extractall(Path(beside, "all"), filter="data")
            if not folder.is_dir():  # another process may have been faster
                Path(beside, "all").rename(folder)
    return folder


def task() -> penjing.Task:
    """The trained network and its data, from the folder in the variable `PENJING_DATA`."""
    data = Path(os.environ.get("PENJING_DATA", ""))
    archive, model = data / "data" / "cifar10-jpeg.tar.xz", ResNet20().eval()
    if not archive.is_file():
        raise penjing.InputError(f"there is no {archive}; run export PENJING_DATA=FOLDER first")
    model.load_state_dict(load_file(data / "models" / "resnet20_cifar10_jpeg.safetensors"))
    images = partial(penjing.ImageFolder, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    train = images(unpacked(archive) / "train", augment="flip-crop", shuffle=True)
    test = images(unpacked(archive) / "test")
    return penjing.Task(model, next(iter(test))[0][:2], train, test, name="cifar10-resnet20")
