"""Data parallel: several processes that train one network, where `torchrun` has started them.

Each takes its share of the batches, all step by the mean of their gradients, and the first one's
word counts. Without a process group, or with one of a single process, everything here does
nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
from torch import distributed, nn

if distributed.is_available():
    # Before a process group is made: its functions keep the group that they find when they are
    # defined, whose threads would then outlive it. Else torch.export imports it, too late.
    import torch.distributed.nn

Item = TypeVar("Item")


def size() -> int:
    """How many processes train together; 1 without a process group."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if size() > 1 else 0


def my_share(batches: Iterable[Item]) -> Iterator[Item]:
    """Every size()-th batch from rank() on; a last round that isn't full is left out, so that all
    processes make the same number of steps."""
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
    """The first process's value, in all of them."""
    if size() == 1:
        return value
    shared = torch.tensor(value, dtype=torch.float64, device=device)
    distributed.broadcast(shared, 0)
    return float(shared)


def share_buffers(network: nn.Module) -> None:
    """Give all processes the first one's buffers (the running statistics of batch norm)."""
    if size() > 1:
        for buffer in network.buffers():
            distributed.broadcast(buffer, 0)
