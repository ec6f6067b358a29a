"""Draws: what torch, NumPy and Python draw at random, the same again wherever that is wanted."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

States = tuple[Any, ...]


def states() -> States:
    """The random states of torch, of NumPy's old functions, and of Python."""
    return torch.get_rng_state(), np.random.get_state(), random.getstate()


def go_on_from(earlier: States) -> None:
    """Continue with these random states."""
    of_torch, of_numpy, of_python = earlier
    torch.set_rng_state(of_torch)
    np.random.set_state(of_numpy)
    random.setstate(of_python)


@contextmanager
def same_draws(seed: int = 0) -> Iterator[None]:
    """Within this context, random numbers come from a fixed seed. Afterwards all random states are
    as before.

    >>> with same_draws():
    ...     number = random.random()
    >>> with same_draws():
    ...     random.random() == number
    True
    """
    before = states()
    try:
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        yield
    finally:
        go_on_from(before)
