"""Knapsack: solve the multiple-choice knapsack problem exactly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from penjing.errors import InputError


def choose(
    costs: Sequence[Sequence[int]], losses: Sequence[Sequence[float]], budget: int
) -> list[int]:
    """Choose one option for each item so that the loss is least and the cost is within a budget.

    This is dynamic programming over the items. It keeps the sums that no other sum beats in both
    cost and loss. The time is bounded by the number of different costs, and it is short if the
    costs share a divisor, as the sizes of layers do.

    Args:
        costs: [item][option].
        losses: [item][option], finite.
        budget: the largest sum of costs.

    Returns:
        The index of the chosen option for each item.

    Raises:
        InputError: even the cheapest options cost more than the budget.

    >>> choose([[1, 4], [1, 4]], [[9.0, 0.0], [5.0, 0.0]], budget=5)
    [1, 0]
    """
    least = sum(min(cost) for cost in costs)
    if least > budget:
        raise InputError(f"the cheapest options cost {least}, more than the budget of {budget}")
    spent, lost = np.zeros(1, np.int64), np.zeros(1)
    steps = []
    for cost, loss in zip(costs, losses, strict=True):
        least -= min(cost)
        spent = np.add.outer(spent, np.asarray(cost, np.int64)).ravel()
        lost = np.add.outer(lost, np.asarray(loss, np.float64)).ravel()
        order = np.lexsort((lost, spent))
        before = np.minimum.accumulate(np.concatenate([[np.inf], lost[order][:-1]]))
        order = order[(lost[order] < before) & (spent[order] <= budget - least)]
        steps.append(order)
        spent, lost = spent[order], lost[order]
    place, options = len(spent) - 1, []
    for order, cost in zip(reversed(steps), reversed(costs), strict=True):
        place, option = divmod(int(order[place]), len(cost))
        options.append(option)
    return options[::-1]
