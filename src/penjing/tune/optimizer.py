"""Optimizer: how the tensors of a network are stepped."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from penjing.network import Network
from penjing.network.graph.qparams import scale_names
from penjing.tune.options import TuneOptions

MOMENTUM = 0.9


def optimizer_for(network: Network, options: TuneOptions) -> torch.optim.Optimizer:
    """An optimizer for all tensors of a network that are trained.

    Tensors of two or more dimensions have weight decay. A step of AdamW is as long as the learning
    rate, whatever the gradient; so scales of integers, which may be far below it, have learning
    rates that are shares of their sizes.
    """
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    apart = scale_names(network) if options.optimizer == "adamw" else set[str]()
    scales = [trained[name] for name in sorted(apart & trained.keys())]
    rest = [tensor for name, tensor in trained.items() if name not in apart]
    groups = [
        _group([tensor for tensor in rest if tensor.dim() > 1], options.weight_decay),
        _group([tensor for tensor in rest if tensor.dim() <= 1]),
        *(_group([scale], size=float(scale.detach().abs().mean())) for scale in scales),
    ]
    if options.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=options.lr)
    return torch.optim.SGD(groups, lr=options.lr, momentum=MOMENTUM, nesterov=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all tensors; see `optimizer_for`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["size"]


def _group(tensors: list[Tensor], decay: float = 0.0, size: float = 1.0) -> dict[str, object]:
    return {"params": tensors, "weight_decay": decay, "size": size}


def one_cycle(share: float, warm_up: float = 0.2, end: float = 1e-3) -> float:
    """The learning rate after a share of the training, relative to its peak.

    >>> [round(one_cycle(s), 3) for s in (0.0, 0.2, 1.0)]
    [0.04, 1.0, 0.001]
    """
    if share < warm_up:
        return 0.04 + 0.96 * share / warm_up
    angle = math.pi * min((share - warm_up) / (1 - warm_up), 1.0)
    return end + (1 - end) * (1 + math.cos(angle)) / 2
