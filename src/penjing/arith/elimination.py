"""Elimination: choose variables from which the others can best be estimated linearly."""

from __future__ import annotations

import torch
from torch import Tensor


def combinations(covariance: Tensor, keep: list[int], ridge: float) -> Tensor:
    """The matrix A, (n, len(keep)), with z - E[z] ~ A (z_keep - E[z_keep]) at least squared error.

    A kept variable is estimated by itself.

    Args:
        covariance: the covariance of z, (n, n).
        keep: the variables that stay.
        ridge: the regularization, as a share of the mean variance.

    >>> two = torch.tensor([[4.0, 2.0], [2.0, 1.0]]).double()
    >>> combinations(two, [1], 1e-9).round(decimals=3).tolist()
    [[2.0], [1.0]]
    """
    chosen = torch.tensor(keep)
    inner = _ridged(covariance[chosen][:, chosen], ridge)
    weights: Tensor = torch.linalg.solve(inner, covariance[chosen]).T
    weights[chosen] = torch.eye(len(keep), dtype=covariance.dtype)
    return weights


def nearest(covariance: Tensor, keep: list[int], ridge: float) -> Tensor:
    """As `combinations`, but each variable is a positive multiple of at most one kept variable.

    >>> three = torch.tensor([[4.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]]).double()
    >>> nearest(three, [1, 2], 1e-9).round(decimals=3).tolist()
    [[2.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    """
    chosen = torch.tensor(keep)
    variances = _ridged(covariance, ridge).diagonal()[chosen]
    shared = covariance[:, chosen].clamp_min(0.0)
    best = (shared.square() / variances).argmax(1, keepdim=True)
    weights = torch.zeros_like(shared).scatter(1, best, (shared / variances).gather(1, best))
    weights[chosen] = torch.eye(len(keep), dtype=covariance.dtype)
    return weights


def eliminated(covariance: Tensor, weight: Tensor, count: int, ridge: float) -> list[int]:
    """The `count` variables that stay when the least needed variable is removed again and again.

    A reader computes the sum of z with the weights w. Without z_j, and with the others compensating
    as well as they can, its result lacks the variance w_j^2 / P_jj, where P is the inverse of the
    covariance. The others then take over the weight of z_j, and P loses it. Each removal takes
    O(n^2).

    Args:
        covariance: the covariance of z, (n, n).
        weight: w w^T, summed over all readers, (n, n).
        count: how many variables stay.
        ridge: the regularization, as a share of the mean variance.

    Source: the formulas of B. Hassibi, D. G. Stork, "Second Order Derivatives for Network Pruning:
    Optimal Brain Surgeon", 1993, applied to variables instead of weights.
    """
    precision = torch.linalg.inv(_ridged(covariance, ridge))
    carried = weight.clone()
    alive = torch.ones(len(covariance), dtype=torch.bool)
    for _ in range(len(covariance) - count):
        missed = carried.diagonal().clamp_min(0.0) / precision.diagonal().clamp_min(1e-300)
        gone = int(torch.where(alive, missed, torch.inf).argmin())
        share = -precision[:, gone] / precision[gone, gone]
        share[~alive] = share[gone] = 0.0
        taken = torch.outer(share, carried[gone])
        carried = carried + taken + taken.T + carried[gone, gone] * torch.outer(share, share)
        column = precision[:, gone].clone()
        precision = precision - torch.outer(column, column) / column[gone]
        alive[gone] = False
        precision[gone, gone] = 1.0
    return alive.nonzero().flatten().tolist()


def _ridged(covariance: Tensor, ridge: float) -> Tensor:
    mean = covariance.diagonal().mean().clamp_min(1e-30)
    return covariance + ridge * mean * torch.eye(len(covariance), dtype=covariance.dtype)
