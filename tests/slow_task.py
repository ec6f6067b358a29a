"""A task for the command line: easy to learn, and slow enough to be interrupted while it tunes."""

import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from penjing.tasks.data import Arrays
from penjing.tasks.task import Task, cross_entropy


class Slow:
    """Batches that take their time."""

    def __init__(self, batches: Arrays, seconds: float) -> None:
        self.batches, self.seconds = batches, seconds

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for one in self.batches:
            time.sleep(self.seconds)
            yield one


def samples(count: int, seed: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    patterns = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return patterns[labels] + 0.5 * torch.randn(count, 3, 8, 8, generator=draw), labels


def task() -> Task:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4),
    )  # fmt: skip
    train = Arrays(*samples(256, 1), batch_size=32)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(4):
        for x, y in train:
            optimizer.zero_grad()
            torch.autograd.backward(cross_entropy(model(x), y))
            optimizer.step()
    held_out = Arrays(*samples(1000, 2))
    return Task(model, samples(2, 3)[0], Slow(train, 0.02), held_out, held_out, name="slow")
