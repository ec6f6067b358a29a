"""Compress your own network. Run `penjing fit examples/own_network.py`.

A task is a trained model, an example of its inputs, and its data. Here a small CNN learns in a few
seconds to classify ten noisy patterns. Replace it and the data by your own model and arrays (or
DataLoaders).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from penjing.tasks.data import Arrays
from penjing.tasks.task import Task


class PlainCnn(nn.Module):
    """Two convolutions with pooling and two linear layers, for images of 32 x 32."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.fc1 = nn.Linear(32 * 8 * 8, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map images x_N3HW to y_NK, the logits of ten patterns."""
        x = functional.max_pool2d(self.conv1(x).relu(), 2)
        x = functional.max_pool2d(self.conv2(x).relu(), 2)
        return self.fc2(self.fc1(x.view(-1, 32 * 8 * 8)).relu())


def samples(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Ten fixed patterns of 3 x 32 x 32, with noise that is eight times as strong."""
    patterns = torch.randn(10, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(10, (count,), generator=draw)
    images = functional.interpolate(patterns, scale_factor=4)[labels]
    return images + 8 * torch.randn(images.shape, generator=draw), labels


def task() -> Task:
    """Train the model for a few seconds, and return it with its data for `penjing fit`."""
    train = Arrays(*samples(2000, seed=1), batch_size=64, shuffle=True)
    test = Arrays(*samples(1000, seed=2))
    torch.manual_seed(0)
    model = PlainCnn()
    optimizer, loss = torch.optim.Adam(model.parameters(), lr=1e-3), nn.CrossEntropyLoss()
    for _ in range(3):
        for x, y in train:
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()
    model.eval()
    return Task(model, example=test.x[:2], train=train, test=test, name="own-network")
