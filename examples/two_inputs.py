"""Two inputs, a number for an answer, and `DataLoader`s: `penjing fit examples/two_inputs.py`.

The network estimates how full a battery is, 0 to 1, from a window of its current and from three
readings: voltage, temperature and age. The data is made up, and the network learns in seconds.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import penjing

Sample = tuple[dict[str, Tensor], Tensor]


class BatteryNet(nn.Module):
    """A branch for the window, a branch for the readings, and two layers for both."""

    def __init__(self) -> None:
        super().__init__()
        first, second = nn.Conv1d(1, 16, 5, stride=2), nn.Conv1d(16, 32, 5, stride=2)
        self.window = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
        self.readings = nn.Sequential(nn.Linear(3, 32), nn.ReLU())
        self.both = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, current: Tensor, readings: Tensor) -> Tensor:
        """current_N1T (64 values) and readings_NC (3 values) -> y_N, the charge."""
        x = torch.cat([self.window(current).mean(2), self.readings(readings)], dim=1)
        return self.both(x).squeeze(1)


class Batteries(Dataset[Sample]):
    """Samples with their inputs as a dictionary; the names are the arguments of `forward`."""

    def __init__(self, count: int, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.charge = torch.rand(count, generator=draw)
        temperature, age = torch.rand(2, count, generator=draw)
        noise = 0.05 * torch.randn(count, 1, 64, generator=draw)
        self.current = (1.2 - self.charge)[:, None, None] * (0.5 + age)[:, None, None] + noise
        voltage = 0.8 * self.charge + 0.2 * temperature
        self.readings = torch.stack([voltage, temperature, age], dim=1)

    def __len__(self) -> int:
        return len(self.charge)

    def __getitem__(self, index: int) -> Sample:
        inputs = {"current": self.current[index], "readings": self.readings[index]}
        return inputs, self.charge[index]


def within_five_percent(charge: Any, wanted: Any) -> Any:
    """A score for each sample: 1 if the estimate is off by at most 0.05, else 0."""
    return np.abs(charge - wanted) <= 0.05


def task() -> penjing.Task:
    """The trained network, its data, its loss and its metric."""
    train = DataLoader(Batteries(4000, seed=1), batch_size=64, shuffle=True)
    validation = DataLoader(Batteries(1000, seed=2), batch_size=128)
    test = DataLoader(Batteries(2000, seed=3), batch_size=128)
    torch.manual_seed(0)
    model, loss = BatteryNet(), nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(8):
        for inputs, charge in train:
            optimizer.zero_grad()
            loss(model(**inputs), charge).backward()
            optimizer.step()
    example, _ = next(iter(validation))  # a dictionary, as all inputs are
    metric = penjing.Metric("within 5 %", within_five_percent)
    return penjing.Task(model.eval(), example, train, test, validation, loss, metric, "battery")
