"""The multiple-choice knapsack, solved exactly: an option of each item, within a budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from penjing.errors import InputError


def choose(
    costs: Sequence[Sequence[int]], losses: Sequence[Sequence[float]], budget: int
) -> list[int]:
    """The option of each item, so that costs sum up to at most `budget` and losses to the least.

    Dynamic programming, item by item, over the sums that can be reached and that no other sum
    beats in both cost and loss; so the time is bounded by the number of different costs, and short
    where they share a divisor, as the sizes of layers do.

    Args:
        costs, losses: [item][option]; losses are finite.

    Returns:
        The option's index for each item.

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
