"""A detector: `penjing fit examples/detector.py --max-drop 0.01`.

Up to four digits lie on an image of 64 x 64 pixels. Each of its 8 x 8 cells tells the box and the
class of the digit whose middle is in it. The network learns in a minute or two. The digits are
scikit-learn's; with `--task-arg mnist=FILE` they are those of a NumPy file of MNIST.
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
        layers, before = list[nn.Module](), 1
        for size, stride in ((1, 2), (2, 2), (4, 2), (4, 1), (4, 1)):
            layers.append(nn.Conv2d(before, size * width, 3, stride, 1, bias=False))
            layers += [nn.BatchNorm2d(size * width), nn.ReLU()]
            before = size * width
        self.layers = nn.Sequential(*layers, nn.Conv2d(before, 14, 1))
        middles = torch.arange(SIZE // CELL) * CELL + CELL / 2
        self.register_buffer(
            "middles", torch.stack(torch.meshgrid(middles, middles, indexing="xy"))
        )

    def forward(self, x: Tensor) -> Tensor:
        """x_N1HW -> y_NPK: for each cell P left, top, right, bottom, and ten scores in 0..1."""
        y = self.layers(x)
        middle, half = self.middles + CELL * y[:, :2].tanh(), 16 * y[:, 2:4].sigmoid()
        return (
            torch.cat([middle - half, middle + half, y[:, 4:].sigmoid()], 1)
            .flatten(2)
            .transpose(1, 2)
        )


def images(digits: Tensor, classes: np.ndarray, count: int, seed: int) -> penjing.Arrays:
    """Images, and of up to four boxes in each: left, top, right, bottom, class; -1 is no box."""
    draw = np.random.default_rng(seed)
    x, boxes = 0.1 * torch.randn(count, 1, SIZE, SIZE), torch.full((count, MOST, 5), -1.0)
    for image, some in zip(x, boxes, strict=True):
        for place in range(draw.integers(1, MOST + 1)):
            which, size = draw.integers(len(digits)), int(draw.integers(14, 28))
            left, top = 32 * np.array([place % 2, place // 2]) + draw.integers(0, 33 - size, 2)
            digit = interpolate(digits[None, None, which], (size, size), mode="bilinear")[0]
            image[:, top : top + size, left : left + size] += digit
            some[place] = torch.tensor([left, top, left + size, top + size, classes[which]])
    return penjing.Arrays(x, boxes, batch_size=50, shuffle=True)


def loss(y: Tensor, boxes: Tensor) -> Tensor:
    """The distance of boxes in pixels, and the cross-entropy of the scores."""
    image, place = torch.where(boxes[:, :, 4] >= 0)
    there = boxes[image, place]
    column, row = ((there[:, :2] + there[:, 2:4]) / 2 // CELL).long().unbind(1)
    cell = row * (SIZE // CELL) + column
    wanted = torch.zeros_like(y[:, :, 4:])
    wanted[image, cell, there[:, 4].long()] = 1
    scores = binary_cross_entropy(y[:, :, 4:], wanted, reduction="sum") / len(y)
    return scores + smooth_l1_loss(y[image, cell, :4], there[:, :4])


def found(y: np.ndarray) -> list[detection.Boxes]:
    """The boxes in each image, without those that overlap a surer one."""
    surest = (detection.Boxes(some[:, :4], some[:, 4:].argmax(1), some[:, 4:].max(1)) for some in y)
    return [detection.without_overlapping(boxes, least=0.05) for boxes in surest]


def truth(targets: np.ndarray) -> list[detection.Boxes]:
    """The boxes that are in each image."""
    there = (boxes[boxes[:, 4] >= 0] for boxes in targets)
    return [detection.Boxes(boxes[:, :4], boxes[:, 4]) for boxes in there]


def task(width: int = 16, epochs: int = 8, count: int = 4000, mnist: str = "") -> penjing.Task:
    """The trained detector, data, its loss and its metric."""
    if mnist:
        with np.load(mnist) as file:
            digits, classes = file["test_x"] / 255, file["test_y"]
    else:
        digits, classes = load_digits().images / 16, load_digits().target
    torch.manual_seed(0)
    order = torch.randperm(len(digits))  # half of them is for training, the other is not
    digits, classes = torch.tensor(digits[order]).float(), classes[order]
    train, validation, test = (
        images(digits[part::2], classes[part::2], number, seed)
        for seed, (part, number) in enumerate([(0, count), (1, 1000), (1, 1000)])
    )
    model = Detector(width)
    optimizer = torch.optim.Adam(model.parameters())
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, epochs * len(train))
    for _ in range(epochs):
        for x, y in train:
            optimizer.zero_grad()
            torch.autograd.backward(loss(model(x), y))
            optimizer.step()
            rates.step()
    metric = detection.mean_average_precision(found, truth, size=(SIZE, SIZE))
    return penjing.Task(model.eval(), test.x[:2], train, test, validation, loss, metric, "digits")
