"""What the tests of passes that refine a rounding share: a task, and how far two networks are."""

from __future__ import annotations

import torch

from penjing.network import Network
from penjing.tasks.task import Task
from tests.reference_networks import build


def task_of(name: str) -> Task:
    torch.manual_seed(0)
    model, x = build(name)
    inputs = torch.randn(64, *x.shape[1:])
    targets = torch.arange(64) % 4
    batches = list(zip(torch.split(inputs, 16), torch.split(targets, 16), strict=True))
    return Task(model.eval(), x[:2], batches, batches)


def error(one: Network, other: Network, task: Task) -> float:
    with torch.no_grad():
        pairs = [(one(x), other(x)) for x, _ in task.train]
    return float(sum((a - b).square().sum() for a, b in pairs))
