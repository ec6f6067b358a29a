"""Batch norm: its tensors, and the affine function that it computes in evaluation mode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from penjing.network.graph.arguments import argument
from penjing.network.graph.network import Network

TENSORS = ("weight", "bias", "running_mean", "running_var")
"""The tensors of a batch norm, under the names of the operator's arguments."""


@dataclass(frozen=True)
class BatchNorm:
    """gamma (x - mean) / sqrt(variance + epsilon) + beta, channel by channel.

    All tensors have the shape (C,). `gamma` and `beta` are None if the norm has none.
    """

    gamma: Tensor | None
    beta: Tensor | None
    mean: Tensor
    variance: Tensor
    epsilon: float

    @property
    def gain(self) -> Tensor:
        """gamma / sqrt(variance + epsilon), float64."""
        inverse = torch.rsqrt(self.variance.double() + self.epsilon)
        return inverse if self.gamma is None else inverse * self.gamma.double()


def batch_norm_of(network: Network, node: fx.Node) -> BatchNorm | None:
    """The tensors of a batch norm; None if it has no running statistics."""
    read: list[Any] = [argument(node, name) for name in TENSORS]
    gamma, beta, mean, variance = (source and network.tensor(str(source.target)) for source in read)
    if mean is None or variance is None:
        return None
    return BatchNorm(gamma, beta, mean, variance, float(argument(node, "eps")))
