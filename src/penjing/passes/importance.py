"""Importance: how much each index of an axis matters, over all the tensors that it touches.

Each criterion gives one score per index; larger stays. For single weights any increasing function
of |w| ranks alike, so "l1", "l2" and "l1+l2" differ only because an index owns many weights.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from penjing.data import first
from penjing.network import Group, Network
from penjing.network.axes import kept
from penjing.task import Task, as_call

Criterion = Literal["l1", "l2", "l1+l2", "taylor"]
CRITERIA: tuple[str, ...] = get_args(Criterion)


def importance(
    network: Network, group: Group, criterion: Criterion, gradients: dict[str, Tensor] | None = None
) -> Tensor:
    """One score for each index of the group's axis; shape (size,).

    With w the weights that go when the index goes, over all parameters that the axis touches:

        l1      mean |w|                    Li et al., "Pruning Filters", 2016
        l2      sqrt(mean w^2)              He et al., "Soft Filter Pruning", 2018
        l1+l2   half of each, each divided by its mean over the axis
        taylor  (sum w dL/dw)^2             Molchanov et al., "Importance Estimation for Neural
                                            Network Pruning", 2019

    Each tensor counts alike: its scores are divided by their mean before they are averaged.
    """
    if criterion == "l1+l2":
        return (importance(network, group, "l1") + importance(network, group, "l2")) / 2
    parameters = dict(network.named_parameters())
    total = torch.zeros(group.size, dtype=torch.float64)
    tensors = 0
    for site in group.sites:
        if site.tensor not in parameters:
            continue
        weight = parameters[site.tensor].detach().double().cpu()
        if criterion == "taylor":
            assert gradients is not None
            weight = weight * gradients[site.tensor].double().cpu()
        rows = _by_index(weight, group, site.dim, site.expression)
        if criterion == "taylor":
            total += rows.sum(1)
            continue
        score = rows.abs().mean(1) if criterion == "l1" else rows.square().mean(1).sqrt()
        mean = float(score.mean())
        if mean > 0:
            total += score / mean
            tensors += 1
    if criterion == "taylor":
        score = total.square()
        return score / score.mean().clamp_min(1e-30)
    return total / max(tensors, 1)


def _by_index(weight: Tensor, group: Group, dim: int, expression: object) -> Tensor:
    """The weight's entries by index of the axis; shape (size, the rest)."""
    rows = weight.movedim(dim, 0).flatten(1) if weight.dim() > 1 else weight[:, None]
    where = [kept(expression, {group.axis: [index]}) for index in range(group.size)]  # type: ignore[arg-type]
    return rows[torch.tensor(where)].flatten(1)


def gradients_of(network: Network, task: Task, samples: int) -> dict[str, Tensor]:
    """Mean gradient of the task's loss for every parameter, in evaluation mode."""
    parameters = dict(network.named_parameters())
    sums = {name: torch.zeros_like(one) for name, one in parameters.items()}
    wanted = [one for one in parameters.values() if one.requires_grad]
    names = [name for name, one in parameters.items() if one.requires_grad]
    for inputs, targets in first(task.train, samples):
        args, kwargs = as_call(inputs)
        loss = task.loss(network(*args, **kwargs), targets)
        found = torch.autograd.grad(loss, wanted, allow_unused=True)
        for name, gradient in zip(names, found, strict=True):
            if gradient is not None:
                sums[name] += gradient
    return sums
