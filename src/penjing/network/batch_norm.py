"""A batch norm's tensors, and the straight line that it is in evaluation mode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, fx

from penjing.network.network import Network


@dataclass(frozen=True)
class BatchNorm:
    """gamma (x - mean) / sqrt(variance + epsilon) + beta, channel by channel; each (C,).

    `gamma` and `beta` are None where the norm has none.
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
    """The tensors of a batch norm node; None if it keeps no statistics."""
    gamma, beta, mean, variance = (
        None if one is None else network.tensor(str(cast(fx.Node, one).target))
        for one in node.args[1:5]
    )
    if mean is None or variance is None:
        return None
    return BatchNorm(gamma, beta, mean, variance, float(cast(float, node.args[7])))
