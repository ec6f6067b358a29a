"""Data parallel: train one network in several processes that `torchrun` has started.

Each process takes its share of the batches. All processes step by the mean of their gradients, and
the first process decides. Without a process group, or with a single process, the functions here do
nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
from torch import distributed, nn

if distributed.is_available():
    # This import has to come before a process group exists: the functions keep the group that they
    # see when they are defined, and its threads would outlive it. torch.export imports it too late.
    import torch.distributed.nn

Item = TypeVar("Item")


def size() -> int:
    """The number of processes that train together; 1 without a process group."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if size() > 1 else 0


def my_share(batches: Iterable[Item]) -> Iterator[Item]:
    """Every size()-th batch from rank() on.

    An incomplete last round is left out, so that all processes take the same number of steps.
    """
    if size() == 1:
        yield from batches
        return
    rounds = iter(batches)
    while len(group := list(itertools.islice(rounds, size()))) == size():
        yield group[rank()]


def average_gradients(network: nn.Module) -> None:
    """Replace each gradient by its mean over the processes."""
    if size() == 1:
        return
    for parameter in network.parameters():
        if parameter.grad is not None:
            distributed.all_reduce(parameter.grad)
            parameter.grad /= size()


def agree(value: float, device: torch.device) -> float:
    """Return the first process's value in all processes."""
    if size() == 1:
        return value
    shared = torch.tensor(value, dtype=torch.float64, device=device)
    distributed.broadcast(shared, 0)
    return float(shared)


def share_buffers(network: nn.Module) -> None:
    """Copy the first process's buffers, such as batch norm statistics, to all processes."""
    if size() > 1:
        for buffer in network.buffers():
            distributed.broadcast(buffer, 0)
