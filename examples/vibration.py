"""A network of your own: `penjing fit examples/vibration.py`.

A sensor on a machine gives windows of 128 values on three axes. The network tells whether the
machine is off, runs well, runs out of balance, or has a worn bearing. Here the data is made up and
the network learns in seconds. In your file, load your checkpoint and your data instead.
"""

import math

import torch
from torch import Tensor, nn

import penjing

STATES = ("off", "good", "unbalanced", "worn")


class VibrationNet(nn.Module):
    """Three convolutions over time and a linear layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.features = nn.Sequential(
            nn.Conv1d(3, half, 7, stride=2, padding=3), nn.BatchNorm1d(half), nn.ReLU(),
            nn.Conv1d(half, width, 5, stride=2, padding=2), nn.BatchNorm1d(width), nn.ReLU(),
            nn.Conv1d(width, width, 3, padding=1), nn.BatchNorm1d(width), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(width, len(STATES))

    def forward(self, x: Tensor) -> Tensor:
        """x_N3T (128 values) -> y_NK, a score for each state."""
        return self.head(self.features(x).mean(2))


def windows(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Windows of 3 x 128 values, and the state of the machine in each."""
    draw = torch.Generator().manual_seed(seed)
    states = torch.randint(len(STATES), (count,), generator=draw)
    hum = torch.tensor([0.0, 1.0, 1.0, 1.0])[states][:, None, None]
    swing = torch.tensor([0.0, 0.2, 1.2, 0.2])[states][:, None, None]
    rattle = torch.tensor([0.0, 0.0, 0.0, 0.7])[states][:, None, None]
    time = torch.linspace(0, 2 * math.pi, 128)
    phase = 2 * math.pi * torch.rand(count, 3, 1, generator=draw)
    clean = hum * (6 * time + phase).sin() + swing * (3 * time + phase).sin()
    clean = clean + rattle * (40 * time + phase).sin()
    return clean + 1.1 * torch.randn(count, 3, 128, generator=draw), states


def trained(width: int, data: penjing.Arrays) -> VibrationNet:
    """The network after two passes over the data; load a checkpoint here instead."""
    torch.manual_seed(0)
    model = VibrationNet(width)
    optimizer, loss = torch.optim.Adam(model.parameters(), lr=3e-3), nn.CrossEntropyLoss()
    for _ in range(2):
        for x, y in data:
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()
    return model.eval()


def task(width: int = 64) -> penjing.Task:
    """What penjing needs to know: the trained model, an example of its inputs, and the data."""
    train = penjing.Arrays(*windows(4000, seed=1), batch_size=64, shuffle=True)
    validation = penjing.Arrays(*windows(1000, seed=2))
    test = penjing.Arrays(*windows(2000, seed=3))
    return penjing.Task(
        model=trained(width, train),
        example=test.x[:2],
        train=train,
        validation=validation,
        test=test,
        name="vibration",
    )
