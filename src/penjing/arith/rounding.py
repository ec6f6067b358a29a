"""Rounding: round weights one after the other, each compensating the errors before it."""

from __future__ import annotations

import torch
from torch import Tensor


def rounded_in_turn(
    weight: Tensor,
    moments: Tensor,
    scales: Tensor,
    ends: tuple[int, int],
    damping: float = 0.01,
    support: Tensor | None = None,
) -> Tensor:
    """Round a weight so that E |W x - W' x|^2 grows least at every step.

    Columns are rounded in the order of the magnitude of their inputs. The columns that are still to
    come compensate the error e_j of column j as well as they can. With U the upper Cholesky factor
    of the inverse of E[x x^T], they move by -e_j U[j, later] / U[j, j].

    Args:
        weight: (O, N).
        moments: E[x x^T] of the inputs, (N, N), or their covariance if a bias takes the mean error.
        scales: (O,), or (O, G) for groups of columns.
        ends: the smallest and the largest integer.
        damping: what is added to the diagonal, as a share of its mean.
        support: where a weight may differ from zero, bool (O, N); None for everywhere. What a
            column moves before its turn is compensated like a rounding error.

    Returns:
        The rounded weight, (O, N): integers times their scales.

    Source: E. Frantar, S. Ashkboos, T. Hoefler, D. Alistarh, "GPTQ: Accurate Post-Training
    Quantization for Generative Pre-trained Transformers", 2023.

    >>> two_alike = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    >>> rounded_in_turn(torch.tensor([[0.4, 0.4]]), two_alike, torch.ones(1), (-8, 7)).tolist()
    [[0.0, 1.0]]
    """
    inputs = weight.shape[1]
    step = (
        scales.double()
        .view(len(weight), -1)
        .repeat_interleave(inputs // (scales.numel() // len(weight)), 1)
    )
    size = moments.diagonal().mean().clamp_min(1e-30)
    damped = moments.double() + damping * size * torch.eye(inputs, dtype=torch.float64)
    order = damped.diagonal().argsort(descending=True, stable=True)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped[order][:, order]))
    factor = torch.linalg.cholesky(inverse, upper=True)
    rest, step = weight.double()[:, order], step[:, order]
    kept = None if support is None else support[:, order]
    for column in range(inputs):
        real, size_of_step = rest[:, column], step[:, column]
        rounded = (real / size_of_step).round().clamp(*ends) * size_of_step
        rounded = rounded if kept is None else rounded * kept[:, column]
        error = (real - rounded) / factor[column, column]
        rest[:, column + 1 :] -= torch.outer(error, factor[column, column + 1 :])
        rest[:, column] = rounded
    result = torch.empty_like(rest)
    result[:, order] = rest
    return result.to(weight.dtype)
