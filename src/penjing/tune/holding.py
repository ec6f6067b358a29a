"""Holding: keep zeros zero and equal weights equal while a network trains."""

from __future__ import annotations

import torch
from torch import Tensor

from penjing.network import Network
from penjing.network.analysis.held import Groups, groups_of, held


class Holding:
    """What `Sparsify` and `Share` left in the weights of a network, and how training keeps it.

    A zero gets no gradient. Members of a group of equal values get the same gradient: the mean over
    the group, which is the gradient of the shared value (the sum of its members') divided by their
    number. So the learning rate means the same with and without sharing, and weight decay acts as
    on any weight. After each step, zeros and equal values are set once more, because an optimizer
    may round members of a group differently.

    Args:
        network: the network that is trained, in place.
    """

    def __init__(self, network: Network) -> None:
        parameters = dict(network.named_parameters())
        self.masks: list[tuple[Tensor, Tensor]] = []
        self.groups: list[tuple[Tensor, Groups]] = []
        for name, mark in held(network).items():
            weight = parameters[name]
            if mark == "zeros":
                self.masks.append((weight, weight.detach() != 0))
            else:
                self.groups.append((weight, groups_of(weight)))

    def before_step(self) -> None:
        """Give zeros no gradient, and the members of a group the gradient of their value."""
        for weight, mask in self.masks:
            if weight.grad is not None:
                weight.grad.mul_(mask)
        for weight, groups in self.groups:
            if weight.grad is not None:
                weight.grad.copy_(groups.averaged(weight.grad))

    @torch.no_grad()
    def after_step(self) -> None:
        """Set zeros and equal values once more."""
        for weight, mask in self.masks:
            weight.mul_(mask)
        for weight, groups in self.groups:
            weight.copy_(groups.equal(weight))
