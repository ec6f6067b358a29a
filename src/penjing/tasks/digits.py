"""The built-in task: scikit-learn's handwritten digits, real images that come with that package."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from penjing.errors import InputError
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task


class DigitsNet(nn.Module):
    """Three 3x3 convolutions with 32, 64 and 64 channels, for images of 1 x 16 x 16."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.conv2, self.bn2 = nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)
        self.conv3, self.bn3 = nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)
        self.hidden, self.head = nn.Linear(64 * 16, 128), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map images x_N1HW (16 x 16) to y_NK, the logits of ten digits."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.max_pool2d(functional.relu(self.bn2(self.conv2(x))), 2)
        x = functional.max_pool2d(functional.relu(self.bn3(self.conv3(x))), 2)
        return self.head(functional.relu(self.hidden(x.flatten(1))))  # type: ignore[no-any-return]


def digits(epochs: int = 6, seed: int = 0) -> Task:
    """1,797 images of 8 x 8 pixels, enlarged to 16 x 16.

    Half of them are for training, a quarter each for validation and test. The function trains the
    network, which takes seconds; the same seed gives the same network.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998.

    Raises:
        InputError: scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError(
            "the task 'digits' needs scikit-learn; pip install 'penjing[demo]'"
        ) from error
    dataset = load_digits()
    images = np.repeat(np.repeat(dataset.images.astype(np.float32) / 16, 2, 1), 2, 2)[:, None]
    order = np.random.default_rng(seed).permutation(len(images))
    learn, choose, prove = np.split(order, [len(order) // 2, 3 * len(order) // 4])
    whole = Arrays(images, dataset.target.astype(np.int64), batch_size=32)
    train = whole.subset(learn, shuffle=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = DigitsNet()
        _train(model, train, epochs)
    return Task(
        model=model,
        example=torch.as_tensor(images[:2]),
        train=train,
        validation=whole.subset(choose, batch_size=128),
        test=whole.subset(prove, batch_size=128),
        name="digits",
        source="digits",
    )


def _train(model: nn.Module, train: Arrays, epochs: int) -> None:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=3e-3, total_steps=epochs * sum(1 for _ in train)
    )
    for _ in range(epochs):
        for x, y in train:
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    model.eval()
