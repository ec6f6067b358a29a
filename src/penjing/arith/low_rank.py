"""Low rank: the best factors of a matrix, measured on the inputs that it gets.

In this file w_OI is a matrix with O outputs and I inputs, and s_II = E[x x^T] is the second moment
of its inputs. The error of w' in place of w is E|w x - w' x|^2 = |(w - w') s^(1/2)|^2. Without
inputs, s is the identity.
"""

from __future__ import annotations

import torch
from torch import Tensor

RIDGE = 1e-4
"""What is added to a second moment, as a share of its mean diagonal."""
TINY = 1e-30


def ridged(moment: Tensor, ridge: float = RIDGE) -> Tensor:
    """s + ridge (trace(s) / I) identity, which is never singular.

    >>> ridged(torch.zeros(2, 2)).diagonal().min().item() > 0
    True
    """
    mean = moment.diagonal().mean().clamp_min(TINY)
    return moment + ridge * mean * torch.eye(len(moment), dtype=moment.dtype)


def root(moment: Tensor, ridge: float = RIDGE) -> Tensor:
    """A square root of a second moment: the lower triangular l_II with l l^T = `ridged(moment)`.

    |w l| is the same for every square root l of s, so the cheapest one serves.

    >>> moment = torch.tensor([[4.0, 4.0], [4.0, 4.0]]).double()  # two inputs that are always equal
    >>> lower = root(moment)
    >>> torch.allclose(lower @ lower.T, moment, atol=1e-3)
    True
    """
    lower: Tensor = torch.linalg.cholesky(ridged(moment, ridge))
    return lower


def factors(weight: Tensor, rank: int, square_root: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The u_OR and v_RI of some rank R for which |(w - u v) l| is least, l a root of s.

    With the singular value decomposition w l = p d q^T, the best product of rank R is
    p_R p_R^T w, so l needs no inverse. The two factors are balanced (`balanced`).

    Args:
        weight: the matrix w, (O, I).
        rank: 1 to min(O, I). With the largest rank the product is w.
        square_root: `root` of the second moment of the inputs, (I, I); None for the identity.

    >>> weight = torch.diag(torch.tensor([3.0, 2.0]))
    >>> u, v = factors(weight, 1)
    >>> (u @ v).round(decimals=6).abs().tolist()
    [[3.0, 0.0], [0.0, 0.0]]
    >>> u, v = factors(weight, 1, root(torch.diag(torch.tensor([0.01, 1.0]))))
    >>> (u @ v).round(decimals=6).abs().tolist()  # the second input is ten times as large
    [[0.0, 0.0], [0.0, 2.0]]
    """
    scaled = weight if square_root is None else weight @ square_root
    directions = torch.linalg.svd(scaled, full_matrices=False)[0][:, :rank]
    return balanced(directions, directions.T @ weight)


def balanced(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The same product u v, with each column of u_OR as long as the row of v_RI that it meets.

    Then neither factor needs a wider range than the other when both are quantized.

    >>> u, v = balanced(torch.tensor([[8.0]]), torch.tensor([[2.0]]))
    >>> u.item(), v.item()
    (4.0, 4.0)
    """
    ratio = right.norm(dim=1) / left.norm(dim=0).clamp_min(TINY)
    scale = torch.where(ratio > 0, ratio, torch.ones_like(ratio)).sqrt()
    return left * scale, right / scale[:, None]


def energies(weight: Tensor, square_root: Tensor | None = None) -> Tensor:
    """The energy |w' l|^2 that the best w' of each rank keeps, (min(O, I),), in growing order.

    It is the sum of the first R squared singular values of w l. The last entry is |w l|^2.

    >>> energies(torch.diag(torch.tensor([3.0, 2.0]))).round(decimals=4).tolist()
    [9.0, 13.0]
    """
    scaled = weight if square_root is None else weight @ square_root
    values: Tensor = torch.linalg.svdvals(scaled)
    return values.square().cumsum(0)


def principal(covariance: Tensor, rank: int) -> Tensor:
    """The `rank` directions u_OR in which outputs with this covariance_OO vary most.

    Outputs y with mean m are best replaced by m + u u^T (y - m). This is principal component
    analysis, the twin of `factors` on the side of the outputs.

    >>> principal(torch.diag(torch.tensor([1.0, 5.0])), 1).abs().tolist()
    [[0.0], [1.0]]
    """
    directions: Tensor = torch.linalg.eigh(covariance).eigenvectors
    return directions.flip(1)[:, :rank]


def refitted(first: Tensor, last: Tensor, weight: Tensor, moment: Tensor) -> Tensor:
    """The a_OP for which |(w - a p) s^(1/2)| is least, for a first factor p_PI that is given.

        a = last + (w - last p) s p^T (p s p^T)^-1

    Args:
        first: the first factor p, (P, I).
        last: what a is without data, (O, P). It stays exactly if last p is w already.
        weight: the matrix w, (O, I).
        moment: s, (I, I).

    >>> first, weight = torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 3.0]])
    >>> equal = torch.ones(2, 2)  # the second input equals the first
    >>> refitted(first, torch.tensor([[2.0]]), weight, equal).round(decimals=2).item()
    5.0
    """
    read = first @ moment
    missing = (weight - last @ first) @ read.T
    lower = torch.linalg.cholesky(ridged(read @ first.T))
    return last + torch.cholesky_solve(missing.T, lower).T
