"""Solve: the changes that together save enough time and lose least."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

SECONDS = 10.0
"""The longest that one problem may take; then the best answer so far counts."""


def least_lost(
    saved: Sequence[float], lost: Sequence[float], apart: Iterable[Sequence[int]], wanted: float
) -> list[int] | None:
    """Choose changes that save enough and lose least, by integer programming.

    Args:
        saved: what each change saves.
        lost: what each change loses.
        apart: sets of changes of which at most one can be chosen.
        wanted: what all of them together have to save.

    Returns:
        The indices of the chosen changes, or None if all of them together don't save enough.

    >>> least_lost([1, 2, 3], [1.0, 1.0, 5.0], [(0, 1)], 2)
    [1]
    >>> least_lost([1, 2], [1.0, 1.0], [(0, 1)], 3) is None
    True
    """
    if not len(saved):
        return None
    exclusive = list(apart)
    matrix = np.zeros((len(exclusive) + 1, len(saved)))
    matrix[0] = saved
    for row, members in enumerate(exclusive, start=1):
        matrix[row, list(members)] = 1
    low = np.full(len(matrix), -np.inf)
    high = np.ones(len(matrix))
    low[0], high[0] = wanted, np.inf
    solution = milp(
        np.asarray(lost, np.float64),
        integrality=np.ones(len(saved)),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(matrix, low, high),
        options={"time_limit": SECONDS},
    )
    if solution.x is None:
        return None
    return [index for index, value in enumerate(solution.x) if value > 0.5]
