"""The networks of the benchmarks, and the tasks made of them."""

from __future__ import annotations

import os
import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from data_folder import require
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from penjing.tasks.checks import check
from penjing.tasks.data import Arrays
from penjing.tasks.reading.images import ImageFolder
from penjing.tasks.reference import find_task
from penjing.tasks.task import Task

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
EXAMPLE = str(EXAMPLES / "cifar10_resnet20.py")
"""The task of ResNet-20 on JPEG-compressed CIFAR-10."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


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
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(
                Residual(before, after, 2 if after > before else 1),
                *(Residual(after, after, 1) for _ in range(blocks - 1)),
            )
            for before, after in ((16, 16), (16, 32), (32, 64))
        )
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        found: Tensor = self.linear(x.mean((2, 3)))
        return found


def conv_bn(
    before: int,
    after: int,
    size: int,
    stride: int = 1,
    groups: int = 1,
    activation: type[nn.Module] = nn.ReLU6,
) -> nn.Sequential:
    conv = nn.Conv2d(before, after, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after), activation())


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
        y: Tensor = self.body(x)
        return x + y if self.shortcut else y


class MobileNetV2(nn.Module):
    """Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018, table 2, with
    all widths but the last `times` as large."""

    TABLE = (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
        (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    )  # fmt: skip

    def __init__(self, times: float = 1.0) -> None:
        super().__init__()
        width = by_eight(32 * times)
        layers: list[nn.Module] = [conv_bn(3, width, 3, 2)]
        for expand, after, repeats, stride in self.TABLE:
            for index in range(repeats):
                step, wide = stride if index == 0 else 1, by_eight(after * times)
                layers.append(Inverted(width, wide, step, expand))
                width = wide
        self.features = nn.Sequential(*layers, conv_bn(width, 1280, 1))
        self.classifier = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return found


class Excited(nn.Module):
    """Squeeze-and-excitation: channels weighted by what their means say."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = by_eight(width / 4)
        self.squeeze, self.excite = nn.Conv2d(width, inner, 1), nn.Conv2d(inner, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        means = functional.relu(self.squeeze(x.mean((2, 3), keepdim=True)))
        return x * functional.hardsigmoid(self.excite(means))


class MobileNetV3Small(nn.Module):
    """Howard et al., "Searching for MobileNetV3", 2019, table 2."""

    TABLE = (
        (3, 16, 16, True, nn.ReLU, 2), (3, 72, 24, False, nn.ReLU, 2),
        (3, 88, 24, False, nn.ReLU, 1), (5, 96, 40, True, nn.Hardswish, 2),
        (5, 240, 40, True, nn.Hardswish, 1), (5, 240, 40, True, nn.Hardswish, 1),
        (5, 120, 48, True, nn.Hardswish, 1), (5, 144, 48, True, nn.Hardswish, 1),
        (5, 288, 96, True, nn.Hardswish, 2), (5, 576, 96, True, nn.Hardswish, 1),
        (5, 576, 96, True, nn.Hardswish, 1),
    )  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.first = conv_bn(3, 16, 3, 2, activation=nn.Hardswish)
        width, self.blocks = 16, nn.ModuleList()
        for size, inner, after, excited, kind, stride in self.TABLE:
            layers: list[nn.Module] = []
            if inner > width:
                layers.append(conv_bn(width, inner, 1, activation=kind))
            layers.append(conv_bn(inner, inner, size, stride, inner, kind))
            layers += [Excited(inner)] if excited else []
            layers += [nn.Conv2d(inner, after, 1, bias=False), nn.BatchNorm2d(after)]
            self.blocks.append(nn.Sequential(*layers))
            width = after
        self.last = conv_bn(width, 576, 1, activation=nn.Hardswish)
        self.classifier = nn.Sequential(nn.Linear(576, 1024), nn.Hardswish(), nn.Linear(1024, 1000))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block, (*_, stride) in zip(self.blocks, self.TABLE, strict=True):
            y = block(x)
            x = x + y if stride == 1 and x.shape == y.shape else y
        found: Tensor = self.classifier(self.last(x).mean((2, 3)))
        return found


def by_eight(width: float) -> int:
    """The nearest multiple of 8, no less than nine tenths of `width`."""
    near = max(8, int(width + 4) // 8 * 8)
    return near if near >= 0.9 * width else near + 8


def plain_cnn() -> nn.Module:
    """Two 3x3 convolutions of 16 and 32 channels with pooling, 2048-128-10, on 3x32x32."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 8 * 8, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


class Dense(nn.Module):
    """A layer that adds 32 channels to all those before it."""

    def __init__(self, before: int, growth: int = 32) -> None:
        super().__init__()
        self.norm1, self.conv1 = (
            nn.BatchNorm2d(before),
            nn.Conv2d(before, 4 * growth, 1, bias=False),
        )
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(functional.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(functional.relu(self.norm2(y)))], 1)


class DenseNet121(nn.Module):
    """G. Huang et al., "Densely Connected Convolutional Networks", 2017, table 1."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        ]  # fmt: skip
        width = 64
        for count in (6, 12, 24, 16):
            if width > 64:
                layers += [
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                    nn.Conv2d(width, width // 2, 1, bias=False),
                ]
                layers.append(nn.AvgPool2d(2))
                width //= 2
            for _ in range(count):
                layers.append(Dense(width))
                width += 32
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(width), nn.ReLU())
        self.classifier = nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return found


class Attention(nn.Module):
    """Heads that each see all patches; queries, keys and values from one layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, count, width = x.shape
        parts = self.qkv(x).reshape(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(*parts.unbind(0))
        found: Tensor = self.out(y.transpose(1, 2).reshape(batch, count, width))
        return found


class Encoder(nn.Module):
    """Attention, then two linear layers, each behind a layer norm and beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.act = nn.LayerNorm(width), nn.GELU()
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        found: Tensor = x + self.down(self.act(self.up(self.norm2(x))))
        return found


class ViTTiny(nn.Module):
    """Patches of 16, width 192, 12 encoders of 3 heads: A. Dosovitskiy et al., "An Image is Worth
    16x16 Words", 2021, in the size of H. Touvron et al., "Training Data-Efficient Image
    Transformers", 2021."""

    def __init__(self, side: int = 224, width: int = 192, depth: int = 12, heads: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(0.02 * torch.randn(1, (side // 16) ** 2 + 1, width))
        self.encoders = nn.Sequential(*(Encoder(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        found: Tensor = self.head(self.norm(self.encoders(x))[:, 0])
        return found


def cifar_task(depth: int, folder: Path) -> Task:
    """The trained checkpoint with its data, or FileNotFoundError naming what is missing."""
    from safetensors.torch import load_file

    model = CifarResNet(depth)
    model.load_state_dict(load_file(require(folder / f"models/resnet{depth}_cifar10.safetensors")))
    with np.load(require(folder / "data/cifar10_lossless.npz")) as kept:
        train = Arrays(kept["train_x"], kept["train_y"], mean=MEAN, std=STD)
        test = Arrays(kept["test_x"], kept["test_y"], mean=MEAN, std=STD)
    return Task(model.eval(), next(iter(test))[0][:2], train, test, name=f"ResNet-{depth}")


def jpeg_task(depth: int, folder: Path) -> Task:
    """The checkpoint for JPEG-compressed CIFAR-10 with all of it, 10,000 test images among them, or
    FileNotFoundError naming what is missing."""
    from safetensors.torch import load_file

    model = CifarResNet(depth)
    weights = require(folder / f"models/resnet{depth}_cifar10_jpeg.safetensors")
    model.load_state_dict(load_file(weights))
    images = runpy.run_path(EXAMPLE)["unpacked"](require(folder / "data/cifar10-jpeg.tar.xz"))
    train, test = (
        Arrays(
            *_decoded(images / part), mean=MEAN, std=STD, augment=augment, shuffle=part == "train"
        )
        for part, augment in (("train", "flip-crop"), ("test", None))
    )
    name = f"ResNet-{depth} JPEG"
    return Task(model.eval(), next(iter(test))[0][:2], train, test, name=name)


def trained_detector(epochs: int) -> Task:
    """The example's, trained on MNIST's digits if the data folder is given."""
    data = os.environ.get("PENJING_DATA", "")
    mnist = str(Path(data, "data", "mnist.npz")) if data else ""
    task, _ = check(find_task(str(EXAMPLES / "detector.py"), epochs=epochs, mnist=mnist))
    return task


def _decoded(path: Path) -> tuple[np.ndarray, Tensor]:
    """The images of a folder as uint8 x_NCHW, and their classes."""
    images = ImageFolder(path)
    pixels = np.stack([np.asarray(Image.open(file)) for file in images.files])
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), images.y


def random_task(model: nn.Module, name: str) -> Task:
    """Random weights and inputs at 224: for timing only, its accuracy means nothing."""
    torch.manual_seed(0)
    batches = [(torch.randn(8, 3, 224, 224), torch.zeros(8, dtype=torch.long)) for _ in range(2)]
    return Task(model.eval(), batches[0][0][:2], batches, [], name=f"{name} (random)")


def small_tasks(folder: Path) -> dict[str, Callable[[], Task]]:
    """By name, how to make the networks for NPUs: trained ResNet-20, three of random weights."""
    return {
        "ResNet-20": lambda: cifar_task(20, folder),
        "MobileNetV2 0.35 96x96": lambda: _small_task(
            lambda: MobileNetV2(0.35), 96, "MobileNetV2 0.35 96x96"
        ),
        "MobileNetV3-Small 96x96": lambda: _small_task(
            MobileNetV3Small, 96, "MobileNetV3-Small 96x96"
        ),
        "plain CNN": lambda: _small_task(plain_cnn, 32, "plain CNN"),
    }


def _small_task(make: Callable[[], nn.Module], side: int, name: str) -> Task:
    """Random weights and images: what it costs is right, what it decides means nothing.

    The norms have the statistics of these images, so that every layer sees a signal, and its
    integers take as many bytes as a trained one's.
    """
    torch.manual_seed(0)
    model, x = make(), torch.randn(64, 3, side, side)
    for one in model.modules():
        if isinstance(one, nn.BatchNorm2d):
            one.momentum = None
    with torch.no_grad():
        model.train()(x)
    data = Arrays(x, torch.arange(64) % 10, batch_size=16)
    return Task(model.eval(), x[:2], data, data, name=f"{name} (random)")


def mobilenet_task() -> Task:
    """See `random_task`."""
    torch.manual_seed(0)
    return random_task(MobileNetV2(), "MobileNetV2")


def densenet_task() -> Task:
    """See `random_task`."""
    torch.manual_seed(0)
    return random_task(DenseNet121(), "DenseNet-121")


def vit_task() -> Task:
    """See `random_task`."""
    torch.manual_seed(0)
    return random_task(ViTTiny(), "ViT-Tiny")
