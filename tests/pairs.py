"""What an x86 processor without VNNI computes, in NumPy's place; and tasks of one layer for it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from penjing.tasks.task import Task


def pairwise(values: Tensor, weights: Tensor) -> Tensor:
    """Sums of products, two neighbours at a time added in 16 bits that cut off (`vpmaddubsw`).

    Args:
        values: 0 to 255, (..., K).
        weights: -128 to 127, (..., K).
    """
    products = values.int() * weights.int()
    if products.shape[-1] % 2:
        products = torch.nn.functional.pad(products, (0, 1))
    pairs = torch.unflatten(products, -1, (-1, 2)).sum(-1)
    return pairs.clamp(-(2**15), 2**15 - 1).sum(-1)


def layer_task(model: nn.Module, shape: tuple[int, ...], signed: bool = False) -> Task:
    """A task whose layers' weights are nearly all as large as they can be: the worst case.

    Args:
        shape: of one sample.
        signed: whether inputs are of both signs.
    """
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
                module.weight.copy_(0.9 + 0.2 * torch.rand(module.weight.shape, generator=draw))
                module.weight[::2].neg_()
    x = torch.rand(64, *shape, generator=draw) - (0.5 if signed else 0.0)
    batches = [(part, torch.zeros(len(part), dtype=torch.long)) for part in torch.split(x, 16)]
    return Task(model.eval(), x[:2], batches, batches)
