"""Half precision: the check that float16 can hold all weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penjing.errors import InputError

LARGEST = 65504.0
LEAST_NUMBERS = 32
"""Smaller tensors stay in float32: converting them back takes as many bytes as is saved."""


def require_in_range(name: str, values: NDArray[np.float32]) -> None:
    """Check that float16 can hold the numbers. Infinities, as in a mask, are fine.

    >>> require_in_range("head.weight", np.array([1.0, 1e5], np.float32))
    Traceback (most recent call last):
    penjing.errors.InputError: head.weight has a weight of 100000, but float16 only goes up to ...

    Raises:
        InputError: a number is beyond the range of float16.
    """
    beyond = values[np.isfinite(values) & (np.abs(values) > LARGEST)]
    if beyond.size:
        worst = beyond[np.abs(beyond).argmax()]
        raise InputError(
            f"{name} has a weight of {worst:.6g}, but float16 only goes up to {LARGEST:.0f}; "
            "export it as float32"
        )
