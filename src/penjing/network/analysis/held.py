"""Held: the zeros and the equal values that an earlier pass made, and that later passes keep.

`Sparsify` and `Share` record in the plan which tensors they changed (`penjing.network.edits.hold`).
Which entries are zero or equal isn't recorded: it follows from the numbers. A tensor that a later
edit has replaced by a dense one therefore has nothing left that could be held.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from penjing.contract import Plan
from penjing.network.edits.hold import Held
from penjing.network.graph.network import Network

MOST_VALUES = 256
"""The largest number of distinct values of a shared weight, in the tensor or in each row of it."""

STAY_EQUAL = "its weights share few values, which stay equal"
"""Why a pass that changes single weights leaves a layer alone."""


def held(network: Network) -> dict[str, Held]:
    """By name of a parameter of the network, what is held in it: `"zeros"` or `"values"`."""
    parameters = dict(network.named_parameters())
    marks: dict[str, Held] = {}
    for name, mark in marked(network.history).items():
        if name not in parameters:
            continue  # a later edit has removed it
        if mark == "values" and are_shared(parameters[name]):
            marks[name] = "values"
        elif bool((parameters[name] == 0).any()):
            marks[name] = "zeros"
    return marks


def marked(plans: Sequence[Plan]) -> dict[str, Held]:
    """What plans record, by name of a tensor. Equal values stay equal if zeros are held later."""
    marks: dict[str, Held] = {}
    for plan in plans:
        for edit in plan.edits:
            if edit["edit"] == "hold":
                shared = {name for name, mark in marks.items() if mark == "values"}
                marks |= edit["tensors"]
                marks |= dict.fromkeys(shared, "values")
    return marks


def are_shared(weight: Tensor) -> bool:
    """Whether a weight has few distinct values, and fewer than numbers; or else every row of it.

    >>> are_shared(torch.tensor([[1.0, 2.0, 1.0, 2.0]])), are_shared(torch.randn(4, 300))
    (True, False)
    """
    weight = weight.detach()
    distinct = len(torch.unique(weight))
    if distinct <= MOST_VALUES or weight.dim() < 2:
        return distinct <= MOST_VALUES and distinct < weight.numel()
    rows = weight.flatten(1)  # of a dense weight, some rows may have two equal numbers by chance
    counts = [len(torch.unique(row)) for row in rows[:MOST_VALUES]]
    return max(counts) <= MOST_VALUES and max(counts) < rows.shape[1]


@dataclass(frozen=True)
class Groups:
    """The groups of equal numbers in a weight.

    Attributes:
        index: the group of each number, in the weight's shape.
        count: the number of groups.
        zero: the group of the zeros; None if there is no zero.
    """

    index: Tensor
    count: int
    zero: int | None

    def averaged(self, gradient: Tensor) -> Tensor:
        """Replace each number by the mean over its group, or by 0 in the group of the zeros.

        The sum over the group is the gradient of the shared value. Divided by the number of
        members, it is the part of the gradient that leaves equal values equal.
        """
        flat = self.index.flatten()
        sums = gradient.new_zeros(self.count).index_add_(0, flat, gradient.flatten())
        means = sums / torch.bincount(flat, minlength=self.count)
        if self.zero is not None:
            means[self.zero] = 0
        return means[flat].view_as(self.index)

    def equal(self, weight: Tensor) -> Tensor:
        """The weight, with one member of each group in place of all, and 0 for the zeros."""
        values = weight.new_zeros(self.count)
        values[self.index.flatten()] = weight.flatten()
        if self.zero is not None:
            values[self.zero] = 0
        return values[self.index.flatten()].view_as(self.index)


def groups_of(weight: Tensor) -> Groups:
    """The groups of equal numbers in a weight.

    >>> groups = groups_of(torch.tensor([0.0, 2.0, 2.0]))
    >>> groups.averaged(torch.tensor([1.0, 1.0, 3.0]))
    tensor([0., 2., 2.])
    """
    values, index = torch.unique(weight.detach(), return_inverse=True)
    places = (values == 0).nonzero().flatten()
    return Groups(index, len(values), int(places[0]) if len(places) else None)
