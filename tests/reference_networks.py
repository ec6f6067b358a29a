"""The reference networks of the project, small enough for tests, with seeded random weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from penjing.tasks.data import Arrays
from penjing.tasks.task import Task


class PlainCnn(nn.Module):
    """Two 3x3 convolutions of 16 and 32 channels with pooling, 2048-128-10, on 3x32x32."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.fc1, self.fc2 = nn.Linear(32 * 8 * 8, 128), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        return self.fc2(functional.relu(self.fc1(x.view(-1, 32 * 8 * 8))))


class AlexNet(nn.Module):
    """Krizhevsky et al. 2012 in its one-column form, a quarter as wide, on 3x64x64."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, 16, 48, 96, 64, 64]
        layers: list[nn.Module] = []
        for i, (kernel, stride, padding) in enumerate(
            [(11, 4, 2), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1)]
        ):
            layers += [nn.Conv2d(widths[i], widths[i + 1], kernel, stride, padding)]
            layers += [nn.ReLU(inplace=True)]
            if i in (0, 1, 4):
                layers += [nn.MaxPool2d(3, 2, padding=1)]
        self.features, self.pool = nn.Sequential(*layers), nn.AdaptiveAvgPool2d((3, 3))
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Linear(64 * 9, 128), nn.ReLU(inplace=True), nn.Linear(128, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.pool(self.features(x)), 1))


class Vgg(nn.Module):
    """Simonyan and Zisserman 2014, configuration A with batch norm, narrow, on 3x32x32."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        c = 3
        for width in (16, 0, 32, 0, 48, 48, 0, 64, 64, 0):
            if width:
                layers += [nn.Conv2d(c, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                c = width
            else:
                layers += [nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Linear(64 * 4, 96), nn.ReLU(), nn.Linear(96, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: "A" pads channels with zeros, "B" projects."""

    def __init__(self, c_in: int, c_out: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.extra, self.stride = c_out - c_in, stride
        self.project: nn.Module | None = None
        if shortcut == "B" and (self.extra or stride != 1):
            self.project = nn.Sequential(
                nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.project is not None:
            x = self.project(x)
        elif self.extra or self.stride != 1:
            half = self.extra // 2
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half))
        return functional.relu(x + y)


class ResNet(nn.Module):
    """He et al. 2015: three stages of 16, 32 and 64 channels, on 3x32x32."""

    def __init__(self, shortcut: str = "A", blocks: int = 2) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        layers, c = [], 16
        for stage, width in enumerate((16, 32, 64)):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                layers.append(ResidualBlock(c, width, stride, shortcut))
                c = width
        self.layers, self.linear = nn.Sequential(*layers), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(functional.relu(self.bn1(self.conv1(x))))
        return self.linear(x.mean((2, 3)))


class DenseNet(nn.Module):
    """Huang et al. 2016: two dense blocks of growth 8 with a halving transition, on 3x32x32."""

    def __init__(self, growth: int = 8, depth: int = 3) -> None:
        super().__init__()
        self.stem, c = nn.Conv2d(3, 16, 3, padding=1, bias=False), 16
        self.blocks = nn.ModuleList()
        self.transitions = nn.ModuleList()
        for block in range(2):
            layers = nn.ModuleList()
            for _ in range(depth):
                layers.append(
                    nn.Sequential(
                        nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, 4 * growth, 1, bias=False),
                        nn.BatchNorm2d(4 * growth), nn.ReLU(),
                        nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
                    )
                )  # fmt: skip
                c += growth
            self.blocks.append(layers)
            if block == 0:
                self.transitions.append(
                    nn.Sequential(
                        nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, c // 2, 1), nn.AvgPool2d(2)
                    )
                )
                c //= 2
        self.norm, self.head = nn.BatchNorm2d(c), nn.Linear(c, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block, layers in enumerate(self.blocks):
            for layer in layers.children():
                x = torch.cat([x, layer(x)], 1)
            if block < len(self.transitions):
                x = self.transitions[block](x)
        x = functional.adaptive_avg_pool2d(functional.relu(self.norm(x)), 1)
        return self.head(torch.flatten(x, 1))


def _conv_bn(c_in: int, c_out: int, kernel: int, stride: int, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(c_out),
        nn.ReLU6(inplace=True),
    )


class MobileNetV1(nn.Module):
    """Howard et al. 2017: depthwise and pointwise convolutions in turn, narrow, on 3x32x32."""

    def __init__(self) -> None:
        super().__init__()
        widths = [(16, 1), (32, 2), (32, 1), (64, 2)]
        layers, c = [_conv_bn(3, 16, 3, 1)], 16
        for width, stride in widths:
            layers += [_conv_bn(c, c, 3, stride, groups=c), _conv_bn(c, width, 1, 1)]
            c = width
        self.features, self.head = nn.Sequential(*layers), nn.Linear(c, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean([2, 3]))


class InvertedResidual(nn.Module):
    """Expand, depthwise, project; a shortcut where shapes allow."""

    def __init__(self, c_in: int, c_out: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = c_in * expand
        self.shortcut = stride == 1 and c_in == c_out
        self.body = nn.Sequential(
            _conv_bn(c_in, hidden, 1, 1),
            _conv_bn(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, c_out, 1, bias=False),
            nn.BatchNorm2d(c_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.shortcut else self.body(x)


class MobileNetV2(nn.Module):
    """Sandler et al. 2018, narrow, on 3x32x32."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [(8, 12, 1), (12, 12, 1), (12, 16, 2), (16, 16, 1), (16, 24, 2)]
        self.features = nn.Sequential(
            _conv_bn(3, 8, 3, 1),
            *(InvertedResidual(a, b, s, 4) for a, b, s in blocks),
            _conv_bn(24, 64, 1, 1),
        )
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(functional.adaptive_avg_pool2d(self.features(x), 1).flatten(1))


class Attention(nn.Module):
    """Multi-head attention with packed qkv, as timm spells it; `fused` or by hand."""

    def __init__(self, width: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        if self.fused:
            x = functional.scaled_dot_product_attention(q, k, v)
        else:
            x = ((q * (c // self.heads) ** -0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(x.transpose(1, 2).reshape(b, n, c))


class Vit(nn.Module):
    """Dosovitskiy et al. 2020: patches of 8, width 48, four heads, two blocks, on 3x32x32."""

    def __init__(self, fused: bool = True) -> None:
        super().__init__()
        width = 48
        self.patch = nn.Conv2d(3, width, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.position = nn.Parameter(torch.randn(1, 17, width) * 0.02)
        self.blocks = nn.ModuleList()
        for _ in range(2):
            self.blocks.append(
                nn.ModuleDict(
                    {
                        "norm1": nn.LayerNorm(width),
                        "attention": Attention(width, 4, fused),
                        "norm2": nn.LayerNorm(width),
                        "mlp": nn.Sequential(nn.Linear(width, 96), nn.GELU(), nn.Linear(96, width)),
                    }
                )
            )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        for block in self.blocks:
            x = x + block["attention"](block["norm1"](x))  # type: ignore[index]
            x = x + block["mlp"](block["norm2"](x))  # type: ignore[index]
        return self.head(self.norm(x)[:, 0])


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "plain_cnn": (PlainCnn, 32),
    "alexnet": (AlexNet, 64),
    "vgg": (Vgg, 32),
    "resnet_a": (lambda: ResNet("A"), 32),
    "resnet_b": (lambda: ResNet("B"), 32),
    "densenet": (DenseNet, 32),
    "mobilenet_v1": (MobileNetV1, 32),
    "mobilenet_v2": (MobileNetV2, 32),
    "vit_fused": (lambda: Vit(True), 32),
    "vit_by_hand": (lambda: Vit(False), 32),
}
"""Name to (constructor, image size)."""


def build(name: str) -> tuple[nn.Module, Tensor]:
    """A reference network in evaluation mode with lively batch norms, and a batch of four."""
    torch.manual_seed(0)
    make, side = NETWORKS[name]
    model = make().eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.3, 0.3)
                module.get_buffer("running_mean").uniform_(-0.3, 0.3)
                module.get_buffer("running_var").uniform_(0.5, 1.5)
    return model, torch.randn(4, 3, side, side)


def self_taught(name: str = "plain_cnn") -> Task:
    """A task whose labels are the network's own decisions, so that the original is always right."""
    model, x = build(name)
    inputs = torch.randn(192, *x.shape[1:])
    with torch.no_grad():
        labels = model(inputs).argmax(1)
    data = Arrays(inputs, labels, batch_size=16)
    train, test, validation = (data.subset(part) for part in torch.split(torch.arange(192), 64))
    return Task(model, x[:2], train, test, validation)
