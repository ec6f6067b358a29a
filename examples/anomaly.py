"""An autoencoder that finds anomalies: `penjing fit examples/anomaly.py --max-drop 0.5`.

A sensor gives the current of a motor, in windows of 128 values. The network has seen good windows
alone, and gives back what it gets. It fails at a window with a knock in it, so that its error tells
which windows are abnormal. The metric is the area under the ROC curve (AUC) of that error. The data
is made up, and the network learns in seconds.
"""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import penjing


def autoencoder(width: int) -> nn.Sequential:
    """Layers that squeeze x_NT (128 values) into eight numbers, and make y_NT of these."""
    layers, sizes = list[nn.Module](), (128, width, width, 8, width, width)
    for before, size in pairwise(sizes):
        layers += [nn.Linear(before, size), nn.BatchNorm1d(size), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 128))


def windows(count: int, abnormal: float, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Windows, and as targets the same windows and whether each has a knock in it."""
    draw = torch.Generator().manual_seed(seed)
    time = torch.linspace(0, 2 * math.pi, 128)
    phase, swing, place = 2 * math.pi * torch.rand(3, count, 2, 1, generator=draw)
    waves = (0.5 + swing / 6) * (torch.tensor([[3.0], [7.0]]) * time + phase).sin()
    knocks = (torch.rand(count, generator=draw) < abnormal).float()
    after = (time - 0.9 * place[:, 0]).clamp(min=0)
    knock = 1.5 * knocks[:, None] * (-3 * after).exp() * (25 * after).sin()
    x = waves.sum(1) + knock + 0.2 * torch.randn(count, 128, generator=draw)
    return x, {"window": x, "abnormal": knocks}


def loss(y: Tensor, targets: dict[str, Tensor]) -> Tensor:
    """How far what the network gives back is from what it got."""
    return mse_loss(y, targets["window"])


def errors(y: Any, targets: Any) -> Any:
    """What is kept of each window: the network's error, and 1 if the window is abnormal."""
    return np.stack([((y - targets["window"]) ** 2).mean(1), targets["abnormal"]], axis=1)


def area(kept: Any) -> float:
    """How often an abnormal window has a larger error than a good one, which is the AUC."""
    ranks, abnormal = rankdata(kept[:, 0]), kept[:, 1] == 1
    count, pairs = abnormal.sum(), abnormal.sum() * (~abnormal).sum()
    return float((ranks[abnormal].sum() - count * (count + 1) / 2) / pairs) if pairs else math.nan


def task(width: int = 128, epochs: int = 12, count: int = 8000) -> penjing.Task:
    """The trained autoencoder, its data, its loss and its metric."""
    train = penjing.Arrays(*windows(count, 0.0, seed=1), batch_size=64, shuffle=True)
    validation = penjing.Arrays(*windows(2000, 0.3, seed=2))
    test = penjing.Arrays(*windows(2000, 0.3, seed=3))
    torch.manual_seed(0)
    model = autoencoder(width)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for x, targets in train:
            optimizer.zero_grad()
            torch.autograd.backward(loss(model(x), targets))
            optimizer.step()
    metric = penjing.Metric("AUC", errors, over=area)
    return penjing.Task(model.eval(), test.x[:2], train, test, validation, loss, metric, "anomaly")
