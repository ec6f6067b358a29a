"""Segmentation: `penjing fit examples/segmentation.py --max-drop 1.0`.

Up to four of scikit-learn's digits are on an image of 32 x 32 pixels. The network says of each
pixel which digit it is of, or 10 for the background. The metric is the mean IoU: of the pixels that
are, or are said to be, of a class, the share that are both. It learns in half a minute.
"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import penjing

CLASSES = 11


def block(before: int, width: int) -> nn.Sequential:
    """A 3x3 convolution with normalization and activation."""
    conv = nn.Conv2d(before, width, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU())


class UNet(nn.Module):
    """Convolutions at a quarter of the size, and at full size with what was seen there before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fine, self.last = block(1, width), block(3 * width, width)
        self.coarse = nn.Sequential(
            nn.MaxPool2d(2), block(width, 2 * width), nn.MaxPool2d(2), block(2 * width, 4 * width),
            block(4 * width, 4 * width), block(4 * width, 2 * width), nn.Upsample(scale_factor=4),
        )  # fmt: skip
        self.head = nn.Conv2d(width, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x_N1HW -> y_NKHW, a score for each class of each pixel."""
        fine = self.fine(x)
        return self.head(self.last(torch.cat([fine, self.coarse(fine)], 1)))


def images(part: slice, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images x_N1HW of some of the digits, each twice as large, and the class of each pixel."""
    digits = torch.tensor(np.kron(load_digits().images[part] / 16, np.ones((2, 2)))).float()
    classes, draw = torch.tensor(load_digits().target[part]), torch.Generator().manual_seed(seed)
    which = torch.randint(len(digits), (count, 2, 2), generator=draw)  # two rows of two digits
    tiles = digits[which] * (torch.rand(count, 2, 2, 1, 1, generator=draw) < 0.6)
    kinds = torch.where(tiles > 0.3, classes[which][..., None, None], CLASSES - 1)
    x, y = (some.transpose(2, 3).reshape(count, 1, 32, 32) for some in (tiles, kinds))
    return x + 0.15 * torch.randn(x.shape, generator=draw), y[:, 0]


def counts(y: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """What is kept of each image: by class, the pixels that are both, are said to be, and are."""
    said, there = np.eye(CLASSES)[y.argmax(1)], np.eye(CLASSES)[kinds]
    return np.stack([pixels.sum((1, 2)) for pixels in (said * there, said, there)], axis=1)


def mean_iou(kept: np.ndarray) -> float:
    """The mean of the IoU of the classes that are there, of all images together."""
    both, said, there = kept.sum(0)
    return float((both / np.maximum(said + there - both, 1))[there > 0].mean())


def task(width: int = 12, epochs: int = 6, count: int = 2000) -> penjing.Task:
    """The trained network, its data and its metric. Digits of other writers are for the test."""
    train = penjing.Arrays(*images(slice(1000), count, seed=1), batch_size=32, shuffle=True)
    validation = penjing.Arrays(*images(slice(1000, 1400), 400, seed=2))
    test = penjing.Arrays(*images(slice(1400, None), 400, seed=3))
    torch.manual_seed(0)
    model, loss = UNet(width), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(epochs):
        for x, y in train:
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()
    metric = penjing.Metric("mean IoU", counts, over=mean_iou)
    return penjing.Task(model.eval(), test.x[:2], train, test, validation, loss, metric, "U-Net")
