"""A detector: `penjing fit examples/detector.py --max-drop 0.01`.

Up to four digits lie on an image of 64 x 64 pixels. Each of its 8 x 8 cells tells the box and the
class of the digit whose middle is in it. `--task-arg mnist=FILE` takes the digits of MNIST.
"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy, interpolate, smooth_l1_loss

import penjing
from penjing import detection

SIZE, CELL, MOST = 64, 8, 4


class Detector(nn.Module):
    """Six convolutions, the last of which gives 14 numbers for each cell."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers, sizes = list[nn.Module](), (1, width, 2 * width, 4 * width, 4 * width, 4 * width)
        for old, new, step in zip(sizes, sizes[1:], (2, 2, 2, 1, 1), strict=False):
            layers += [nn.Conv2d(old, new, 3, step, 1, bias=False), nn.BatchNorm2d(new), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(sizes[-1], 14, 1))
        self.register_buffer("middles", torch.tensor(CELL * np.indices((8, 8))[::-1] + 4.0).float())

    def forward(self, x: Tensor) -> Tensor:
        """x_N1HW -> y_NPK: for each cell P left, top, right, bottom, and ten scores in 0..1."""
        y = self.layers(x)
        mid, half = self.middles + CELL * y[:, :2].tanh(), 16 * y[:, 2:4].sigmoid()
        return torch.cat([mid - half, mid + half, y[:, 4:].sigmoid()], 1).flatten(2).transpose(1, 2)


def images(digits: Tensor, classes: np.ndarray, count: int, seed: int) -> penjing.Arrays:
    """Images, and of up to four boxes in each: left, top, right, bottom, class; -1 is no box."""
    draw = np.random.default_rng(seed)
    x, boxes = 0.1 * torch.randn(count, 1, SIZE, SIZE), torch.full((count, MOST, 5), -1.0)
    for image, place in ((n, k) for n in range(count) for k in range(draw.integers(1, MOST + 1))):
        which, size = draw.integers(len(digits)), int(draw.integers(14, 28))
        left, top = 32 * np.array([place % 2, place // 2]) + draw.integers(0, 33 - size, 2)
        digit = interpolate(digits[None, None, which], (size, size), mode="bilinear")
        x[image, :, top : top + size, left : left + size] += digit[0]
        boxes[image, place] = torch.tensor([left, top, left + size, top + size, classes[which]])
    return penjing.Arrays(x, boxes, batch_size=50, shuffle=True)


def loss(y: Tensor, boxes: Tensor) -> Tensor:
    """The distance of boxes in pixels, and the cross-entropy of the scores."""
    image, place = torch.where(boxes[:, :, 4] >= 0)
    there, wanted = boxes[image, place], torch.zeros_like(y[:, :, 4:])
    cell = ((there[:, :2] + there[:, 2:4]) / 2 // CELL @ y.new_tensor([1, 8])).long()
    wanted[image, cell, there[:, 4].long()] = 1
    scores = binary_cross_entropy(y[:, :, 4:], wanted, reduction="sum") / len(y)
    return scores + smooth_l1_loss(y[image, cell, :4], there[:, :4])


def task(width: int = 16, epochs: int = 8, count: int = 4000, mnist: str = "") -> penjing.Task:
    """The trained detector, data, its loss and its metric."""
    digits, classes = load_digits().images / 16, load_digits().target
    if mnist:
        digits, classes = np.load(mnist)["test_x"] / 255, np.load(mnist)["test_y"]
    torch.manual_seed(0)
    order = torch.randperm(len(digits))  # half of them is for training, the other is not
    digits, classes = torch.tensor(digits[order]).float(), classes[order]
    train = images(digits[::2], classes[::2], count, seed=0)
    validation, test = (images(digits[1::2], classes[1::2], 1000, seed) for seed in (1, 2))
    model = Detector(width)
    optimizer = torch.optim.Adam(model.parameters())
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, epochs * len(train))
    for x, boxes in (batch for _ in range(epochs) for batch in train):
        optimizer.zero_grad()
        torch.autograd.backward(loss(model(x), boxes))
        optimizer.step()
        rates.step()
    metric = detection.mean_average_precision(detection.surest, detection.unpadded, size=(64, 64))
    return penjing.Task(model.eval(), test.x[:2], train, test, validation, loss, metric, "digits")
