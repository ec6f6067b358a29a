"""Least squares: with an intercept, from rows that arrive in batches. Only sums are kept."""

from __future__ import annotations

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

    def solve(self, ridge: float, intercept: bool = True) -> tuple[Tensor, Tensor]:
        """Solve for W, (M, N), and b, (M,). Without an intercept, b is zero.

        If no input varies, W is zero, which is the smallest of all equally good solutions.

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
        weight = torch.cholesky_solve(yx.T, factor).T
        offset = (self.y - weight @ self.x) / rows
        return weight, offset if intercept else torch.zeros_like(offset)
