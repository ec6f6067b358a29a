"""A forecaster with a GRU: `penjing fit examples/forecast.py --max-drop 5%`.

The network reads how much power a building took in each of the last 48 hours, with the time of day,
and says how much it will take in each of the next six. The metric is the mean absolute error in
kilowatts, of which less is better. So the budget is an amount too: `--max-drop 0.1` is 0.1 kW, and
`--max-drop 5%` is a twentieth of the error that the trained network has. The data is made up, and
the network learns in half a minute.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import penjing

PAST, NEXT = 48, 6
LEVEL, SPREAD = 40.0, 15.0  # kilowatts, which the network divides by


class Forecaster(nn.Module):
    """A GRU, and a linear layer after its last step."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gru = nn.GRU(3, width, batch_first=True)
        self.head = nn.Linear(width, NEXT)

    def forward(self, x: Tensor) -> Tensor:
        """x_NTC (48 hours; power, sine and cosine of the hour) -> y_NT, the next hours' power."""
        steps, _ = self.gru(x)
        return LEVEL + SPREAD * self.head(steps[:, -1])


def series(hours: int, seed: int) -> np.ndarray:
    """The power in each hour, in kW: the day, the week, weather that stays for days, and noise."""
    draw, hour = np.random.default_rng(seed), np.arange(hours)
    day = np.exp(3 * np.sin(2 * math.pi * (hour - 8) / 24) - 3)
    works = np.where(hour // 24 % 7 < 5, 1.0, 0.3)
    weather, shocks = np.zeros(hours), draw.normal(size=hours)
    for now in range(1, hours):
        weather[now] = 0.97 * weather[now - 1] + 1.5 * shocks[now]
    return 30 + 40 * day * works + weather + draw.normal(size=hours)


def windows(hours: int, seed: int) -> tuple[Tensor, Tensor]:
    """48 hours from each place in a series of so many hours, and the six hours after them."""
    power, hour = torch.tensor(series(hours, seed)).float(), torch.arange(hours)
    angle = 2 * math.pi * hour / 24
    told = torch.stack([(power - LEVEL) / SPREAD, angle.sin(), angle.cos()], dim=1)
    past, after = told.unfold(0, PAST, 1).mT[:-NEXT], power.unfold(0, NEXT, 1)[PAST:]
    return past.contiguous(), after.contiguous()


def off_by(y: Any, power: Any) -> Any:
    """The mean absolute error of each sample, in kW."""
    return np.abs(y - power).mean(1)


def task(width: int = 48, epochs: int = 6, hours: int = 12_000) -> penjing.Task:
    """The trained forecaster, its loss and its metric; validation and test are other series."""
    train = penjing.Arrays(*windows(hours, seed=1), batch_size=64, shuffle=True)
    validation = penjing.Arrays(*windows(2000, seed=2))
    test = penjing.Arrays(*windows(2000, seed=3))
    torch.manual_seed(0)
    model, loss = Forecaster(width), nn.SmoothL1Loss()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for x, power in train:
            optimizer.zero_grad()
            torch.autograd.backward(loss(model(x), power))
            optimizer.step()
    metric = penjing.Metric("mean absolute error", off_by, higher=False, unit="kW")
    return penjing.Task(model.eval(), test.x[:2], train, test, validation, loss, metric, "forecast")
