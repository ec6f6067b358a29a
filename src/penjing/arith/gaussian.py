"""Gaussian: the mean and covariance of a function of Gaussian variables."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

TERMS = 12
"""The terms of the Hermite series. They give ReLU's covariance to about 1 % of a variance."""
REACH, STEPS = 8.0, 1025
"""The range and number of points of a standard normal variable. The error of the trapezoid rule at
a kink is about 1e-5."""


def moments_through(
    function: Callable[[Tensor], Tensor], mean: Tensor, covariance: Tensor
) -> tuple[Tensor, Tensor]:
    """The mean and covariance of f(z) for z ~ N(mean, covariance), where f is elementwise.

    Let h_k be the Hermite polynomials that are orthonormal under t ~ N(0, 1), r_ij the correlations
    and c_k(i) = E[f(mean_i + s_i t) h_k(t)] the Hermite coefficients of each variable. Then

        E[f(z_i)] = c_0(i)        Cov[f(z_i), f(z_j)] = sum over k >= 1 of c_k(i) c_k(j) r_ij^k

    Args:
        function: an elementwise function of a tensor.
        mean: (n,), float64.
        covariance: (n, n), float64. A variable without variance gives a constant.

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
    points = torch.linspace(-REACH, REACH, STEPS, dtype=torch.float64)
    weight = torch.exp(-points.square() / 2)
    values = function(mean[:, None] + spread[:, None] * points) * (weight / weight.sum())
    before, polynomial = torch.zeros_like(points), torch.ones_like(points)
    average = values.sum(1)
    covariance_out = torch.zeros_like(covariance)
    power = torch.ones_like(correlation)
    for k in range(1, TERMS + 1):
        following = (points * polynomial - math.sqrt(k - 1) * before) / math.sqrt(k)
        before, polynomial = polynomial, following
        power = power * correlation
        coefficient = values @ polynomial
        covariance_out += torch.outer(coefficient, coefficient) * power
    return average, covariance_out
