"""What a function makes of Gaussian variables: the mean and covariance of its values."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

TERMS = 12
"""Of the Hermite series; ReLU's covariance is then right to about 1 % of a variance."""
REACH, STEPS = 8.0, 1025
"""The grid over a standard normal variable; the trapezoid rule errs by about 1e-5 at a kink."""


def moments_through(
    function: Callable[[Tensor], Tensor], mean: Tensor, covariance: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and covariance of f(z), element by element, for z ~ N(mean, covariance).

    With the Hermite coefficients c_k(i) = E[f(mean_i + s_i t) h_k(t)] of each variable, h_k the
    Hermite polynomials that are orthonormal under t ~ N(0, 1), and r_ij the correlations,

        E[f(z_i)] = c_0(i)        Cov[f(z_i), f(z_j)] = sum over k >= 1 of c_k(i) c_k(j) r_ij^k

    Args:
        function: computed element by element, any shape to the same shape.
        mean: (n,), float64.
        covariance: (n, n), float64; a variable without variance gives a constant.

    >>> mean, covariance = moments_through(
    ...     torch.relu, torch.zeros(2).double(), torch.eye(2).double())
    >>> [round(float(value), 3) for value in (mean[0], covariance[0, 0], covariance[0, 1])]
    [0.399, 0.34, 0.0]

    Source: F. G. Mehler, "Ueber die Entwicklung einer Function von beliebig vielen Variablen nach
    Laplaceschen Functionen hoeherer Ordnung", 1866.
    """
    spread = covariance.diagonal().clamp_min(0.0).sqrt()
    scale = torch.where(spread > 0, spread, 1.0)
    correlation = (covariance / torch.outer(scale, scale)).clamp(-1.0, 1.0)
    grid = torch.linspace(-REACH, REACH, STEPS, dtype=torch.float64)
    weight = torch.exp(-grid.square() / 2)
    values = function(mean[:, None] + spread[:, None] * grid) * (weight / weight.sum())
    before, polynomial = torch.zeros_like(grid), torch.ones_like(grid)
    average = values.sum(1)
    covariance_out = torch.zeros_like(covariance)
    power = torch.ones_like(correlation)
    for k in range(1, TERMS + 1):
        following = (grid * polynomial - math.sqrt(k - 1) * before) / math.sqrt(k)
        before, polynomial = polynomial, following
        power = power * correlation
        coefficient = values @ polynomial
        covariance_out += torch.outer(coefficient, coefficient) * power
    return average, covariance_out
