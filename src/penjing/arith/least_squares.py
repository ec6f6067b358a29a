"""Least squares: with an intercept, from rows that arrive in batches. Only sums are kept."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from penjing.errors import InputError


class NormalEquations:
    """min over W, b of mean |y - W x - b|^2 + ridge v |W|^2, for rows x_N and y_M.

    v is the mean variance of x, so the ridge means the same at any scale. The memory is N^2 + N M
    numbers of 64 bits, however many rows are added.

    >>> system = NormalEquations(2, 1)
    >>> x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    >>> system.add(x, 2 * x[:, :1] - x[:, 1:] + 3)
    >>> weight, bias = system.solve(ridge=0.0)
    >>> weight.round(decimals=6).tolist(), bias.round(decimals=6).tolist()
    ([[2.0, -1.0]], [3.0])
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        self.rows = 0
        self.x = torch.zeros(inputs, dtype=torch.float64)
        self.y = torch.zeros(outputs, dtype=torch.float64)
        self.xx = torch.zeros(inputs, inputs, dtype=torch.float64)
        self.yx = torch.zeros(outputs, inputs, dtype=torch.float64)

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add rows x of shape (rows, N) and y of shape (rows, M)."""
        x, y = x.double(), y.double()
        self.rows += len(x)
        self.x += x.sum(0)
        self.y += y.sum(0)
        self.xx += x.T @ x
        self.yx += y.T @ x

    def covariances(self) -> tuple[Tensor, Tensor]:
        """The covariances of x with itself, (N, N), and of y with x, (M, N)."""
        rows = max(self.rows, 1)
        mean_x, mean_y = self.x / rows, self.y / rows
        return (
            self.xx / rows - torch.outer(mean_x, mean_x),
            self.yx / rows - torch.outer(mean_y, mean_x),
        )

    def solve(
        self, ridge: float, intercept: bool = True, support: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Solve for W, (M, N), and b, (M,). Without an intercept, b is zero.

        If no input varies, W is zero, which is the smallest of all equally good solutions.

        Args:
            ridge: the regularization, relative to the mean variance of the inputs.
            intercept: whether there is a b.
            support: where W may differ from zero, bool (M, N); None for everywhere.

        Raises:
            InputError: there is no ridge, and inputs are constant or linearly dependent.
        """
        rows = max(self.rows, 1)
        xx, yx = self.covariances() if intercept else (self.xx / rows, self.yx / rows)
        varies = float(xx.diagonal().mean()) > 1e-12 * float(self.xx.diagonal().mean()) / rows
        if ridge and not varies:
            return torch.zeros_like(yx), self.y / rows if intercept else torch.zeros_like(self.y)
        xx = xx + ridge * xx.diagonal().mean() * torch.eye(len(xx), dtype=torch.float64)
        factor, failed = torch.linalg.cholesky_ex(xx)
        if int(failed) or not bool(torch.isfinite(factor).all()):
            raise InputError(
                f"the inputs are linearly dependent ({self.rows} rows for {len(xx)} unknowns); "
                "give more samples or a larger ridge"
            )
        if support is None:
            weight = torch.cholesky_solve(yx.T, factor).T
        else:
            weight = solved_on_support(xx, yx, support)
        offset = (self.y - weight @ self.x) / rows
        return weight, offset if intercept else torch.zeros_like(offset)


ENOUGH = 1e-5
"""The share of the squared residual at which conjugate gradients stop. The misfit is then within
0.02 % of the least."""
MOST_OPERATIONS = 1e10
"""Multiplications to solve one system exactly on its support, some seconds; beyond it, conjugate
gradients take less time."""
AT_ONCE = 2**24
"""Numbers of the matrices that are factored together: 128 MB."""


def solved_on_support(moments: Tensor, products: Tensor, support: Tensor) -> Tensor:
    """For each row b of `products`, the w that minimizes w A w - 2 b w and is zero off its support.

    Rows have different supports, so each has a system of its own, A[S, S] w[S] = b[S]. They are
    factored in batches. If that would take too long, up to 100 steps of conjugate gradients,
    preconditioned with the diagonal, serve all rows at once.

    Args:
        moments: A, positive definite, (N, N).
        products: b, (M, N).
        support: where w may differ from zero, bool (M, N).

    Returns:
        w, (M, N), in the type of A.

    Raises:
        InputError: A is singular on the support of a row.

    >>> A, b = torch.tensor([[4.0, 1.0], [1.0, 1.0]]), torch.tensor([[4.0, 5.0]])
    >>> solved_on_support(A, b, torch.tensor([[True, False]])).tolist()
    [[1.0, 0.0]]
    """
    products = products * support
    inputs = len(moments)
    if len(products) * inputs**3 / 3 > MOST_OPERATIONS:
        return _by_conjugate_gradients(moments, products, support)
    each = max(1, AT_ONCE // inputs**2)
    parts = []
    for wanted, kept in zip(torch.split(products, each), torch.split(support, each), strict=True):
        factor = support_factors(moments, kept)
        parts.append(torch.cholesky_solve(wanted[..., None], factor)[..., 0])
    return torch.cat(parts) * support


def support_factors(moments: Tensor, support: Tensor) -> Tensor:
    """The Cholesky factors of A[S, S] for each row's support, with the identity elsewhere.

    Args:
        moments: A, (N, N).
        support: bool (M, N).

    Returns:
        (M, N, N).

    Raises:
        InputError: A is singular on a support.
    """
    kept = support.to(moments.dtype)
    parts = moments * kept[:, :, None] * kept[:, None, :]
    parts.diagonal(dim1=1, dim2=2).add_(1 - kept)
    factors, failed = torch.linalg.cholesky_ex(parts)
    sizes = factors.diagonal(dim1=1, dim2=2)
    if bool(failed.any()) or not bool(torch.isfinite(sizes).all()):
        raise InputError(
            f"the covariance of {len(moments)} inputs is singular; give more samples or a larger "
            "ridge or damping"
        )
    return cast(Tensor, factors)


def _by_conjugate_gradients(
    moments: Tensor, products: Tensor, support: Tensor, steps: int = 100
) -> Tensor:
    least = torch.finfo(moments.dtype).tiny
    precondition = support / moments.diagonal().clamp_min(least)
    weight, residual = torch.zeros_like(products), products.clone()
    scaled = residual * precondition
    direction, size = scaled.clone(), (residual * scaled).sum(1, keepdim=True)
    enough = ENOUGH * size
    for _ in range(steps):
        if bool((size <= enough).all()):
            break
        image = (direction @ moments) * support
        curvature = (direction * image).sum(1, keepdim=True)
        step = torch.where(curvature > 0, size / curvature.clamp_min(least), 0.0)
        weight += step * direction
        residual -= step * image
        scaled = residual * precondition
        new = (residual * scaled).sum(1, keepdim=True)
        direction = scaled + (new / size.clamp_min(least)) * direction
        size = new
    return weight
