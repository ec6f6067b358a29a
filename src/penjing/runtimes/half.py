"""Half precision: real numbers in two bytes instead of four, or one line that says which can't."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penjing.errors import InputError

LARGEST = 65504.0
LEAST_NUMBERS = 32
"""In how many numbers it pays: what turns fewer back takes as many bytes as they save."""


def require_in_range(name: str, values: NDArray[np.float32]) -> None:
    """Check that float16 holds the numbers; infinities, as in a mask, stay what they are.

    Raises:
        InputError: one is beyond float16's largest.
    """
    beyond = values[np.isfinite(values) & (np.abs(values) > LARGEST)]
    if beyond.size:
        worst = beyond[np.abs(beyond).argmax()]
        raise InputError(
            f"{name} has a weight of {worst:.6g}, and float16 holds no more than {LARGEST:.0f}; "
            "export it as float32"
        )
