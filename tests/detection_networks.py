"""Detectors with what real ones are made of: heads over several scales, and distributions.

Each takes images x_N3HW of 64 x 64 and gives, for all places of all scales, boxes and scores. Their
weights are random, so only what files compute is tested with them, not what they detect.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

CLASSES, BINS, ANCHORS = 3, 8, 2


def conv(before: int, width: int, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution with a batch norm and SiLU."""
    layer = nn.Conv2d(before, width, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(width), nn.SiLU())


class Halves(nn.Module):
    """As C2f in YOLOv8: one half of the channels goes on through residual blocks, and all that was
    ever there is concatenated."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        half = width // 2
        self.enter, self.leave = conv(width, width, 1), conv(half * (2 + depth), width, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(conv(half, half), conv(half, half)) for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.enter(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(parts[-1] + block(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class Yolo(nn.Module):
    """Two scales with a path from the coarse one to the fine one, and boxes by the mean of a
    distribution over distances, which a fixed convolution reads. It decodes boxes to pixels."""

    places: Tensor
    steps: Tensor

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, width, 3, 2), conv(width, width, 3, 2))
        self.fine, self.down = Halves(width, 1), conv(width, 2 * width, 3, 2)
        self.coarse, self.up = Halves(2 * width, 1), nn.Upsample(scale_factor=2)
        self.joined = conv(3 * width, width, 1)
        self.boxes = nn.ModuleList(self._head(w, width, 4 * BINS) for w in (width, 2 * width))
        self.scores = nn.ModuleList(self._head(w, width, CLASSES) for w in (width, 2 * width))
        self.mean = nn.Conv2d(BINS, 1, 1, bias=False).requires_grad_(False)
        self.mean.weight.data[:] = torch.arange(float(BINS)).view(1, BINS, 1, 1)
        places, steps = [], []
        for side, step in ((16, 4.0), (8, 8.0)):
            middle = torch.arange(side) + 0.5
            places.append(torch.stack(torch.meshgrid(middle, middle, indexing="xy")).flatten(1))
            steps.append(torch.full((side * side,), step))
        self.register_buffer("places", torch.cat(places, 1))
        self.register_buffer("steps", torch.cat(steps))

    @staticmethod
    def _head(before: int, width: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(conv(before, width), nn.Conv2d(width, outputs, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Boxes b_N4P in pixels, as corners, and scores s_NKP, for P places."""
        fine = self.fine(self.stem(x))
        coarse = self.coarse(self.down(fine))
        scales = (self.joined(torch.cat([fine, self.up(coarse)], 1)), coarse)
        sides = torch.cat([h(s).flatten(2) for h, s in zip(self.boxes, scales, strict=True)], 2)
        likely = sides.view(sides.shape[0], 4, BINS, -1).transpose(1, 2).softmax(1)
        left, right = self.mean(likely)[:, 0].chunk(2, 1)
        corners = torch.cat([self.places - left, self.places + right], 1) * self.steps
        scores = [h(s).flatten(2) for h, s in zip(self.scores, scales, strict=True)]
        return {"boxes": corners, "scores": torch.cat(scores, 2).sigmoid()}


class Light(nn.Module):
    """As torchvision's SSDlite: depthwise heads over scales that get coarser, whose outputs are
    reshaped to anchors and concatenated, not decoded."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            [
                nn.Sequential(self._down(3, width, 2), self._down(width, width, 2)),
                self._down(width, width, 2),
                self._down(width, width, 2),
            ]
        )
        self.boxes = nn.ModuleList(self._head(width, 4 * ANCHORS) for _ in range(3))
        self.scores = nn.ModuleList(self._head(width, CLASSES * ANCHORS) for _ in range(3))

    @staticmethod
    def _down(before: int, width: int, stride: int) -> nn.Sequential:
        layer = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        return nn.Sequential(layer, nn.BatchNorm2d(width), nn.ReLU6())

    @staticmethod
    def _head(width: int, outputs: int) -> nn.Sequential:
        depthwise = nn.Conv2d(width, width, 3, 1, 1, groups=width, bias=False)
        norm = nn.BatchNorm2d(width)
        return nn.Sequential(depthwise, norm, nn.ReLU6(), nn.Conv2d(width, outputs, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Offsets of boxes o_NA4 and logits l_NAK, for A anchors."""
        given: dict[str, list[Tensor]] = {"offsets": [], "logits": []}
        for scale, boxes, scores in zip(self.scales, self.boxes, self.scores, strict=True):
            x = scale(x)
            given["offsets"].append(by_anchor(boxes(x), 4))
            given["logits"].append(by_anchor(scores(x), CLASSES))
        return {name: torch.cat(parts, 1) for name, parts in given.items()}


class Shared(nn.Module):
    """As torchvision's RetinaNet: a pyramid whose levels are summed, and one head for all."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first = nn.Sequential(Light._down(3, width, 2), Light._down(width, width, 2))
        self.second = Light._down(width, 2 * width, 2)
        self.inner = nn.ModuleList(nn.Conv2d(w, width, 1) for w in (width, 2 * width))
        self.outer = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.boxes, self.scores = self._head(width, 4), self._head(width, CLASSES)

    @staticmethod
    def _head(width: int, outputs: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        return nn.Sequential(*layers, nn.Conv2d(width, outputs * ANCHORS, 3, padding=1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Offsets of boxes o_NA4 and logits l_NAK, for A anchors."""
        fine = self.first(x)
        coarse = self.inner[1](self.second(fine))
        near = self.inner[0](fine) + nn.functional.interpolate(coarse, scale_factor=2.0)
        levels = [self.outer[0](near), self.outer[1](coarse)]
        return {
            "offsets": torch.cat([by_anchor(self.boxes(level), 4) for level in levels], 1),
            "logits": torch.cat([by_anchor(self.scores(level), CLASSES) for level in levels], 1),
        }


def by_anchor(x: Tensor, each: int) -> Tensor:
    """x_N(A*each)HW -> y_N(H*W*A)each."""
    height, width = x.shape[-2:]
    x = x.view(-1, ANCHORS, each, height, width).permute(0, 3, 4, 1, 2)
    return x.reshape(-1, height * width * ANCHORS, each)


DETECTORS: dict[str, Callable[[], nn.Module]] = {
    "two scales and distributions": Yolo, "depthwise heads": Light, "one head for all": Shared,
}  # fmt: skip
