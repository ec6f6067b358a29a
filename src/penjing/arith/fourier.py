"""Fourier: the discrete Fourier transform as a matrix."""

from __future__ import annotations

import math

import torch


def fourier_matrix(rows: int, n: int, inverse: bool, half: bool) -> torch.Tensor:
    """W_jk of a transform of n values, the first `rows` of which are given.

    With `half`, the signal is real, and the transform has only the first n // 2 + 1 frequencies.

    >>> x = torch.tensor([3.0, 1.0, 4.0, 1.0, 5.0])
    >>> spectrum = x.to(torch.complex128) @ fourier_matrix(5, 5, inverse=False, half=True)
    >>> torch.allclose(spectrum, torch.fft.rfft(x.double()))
    True
    """
    sign = 2j if inverse else -2j
    j, k = torch.arange(rows).double(), torch.arange(n).double()
    matrix = torch.exp(sign * math.pi * (j[:, None] * k) / n)
    given = torch.arange(rows) < n
    if half and inverse:  # each frequency stands for two, except the first and the middle one
        given = torch.arange(rows) <= n // 2
        double = (torch.arange(rows) > 0) & (2 * torch.arange(rows) != n)
        matrix = matrix * torch.where(double, 2.0, 1.0)[:, None]
    elif half:
        matrix = matrix[:, : n // 2 + 1]
    return matrix * given[:, None]
