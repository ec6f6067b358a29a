"""Kernel factors: write a convolution or a linear layer as two or three smaller ones.

w_OC.. is the weight of a layer: (O, C) for a linear layer, (O, C, k..) for a convolution. s is the
second moment E[x x^T] of its windows x, with I = C k.. numbers each, in the order of w[0]. None
stands for the identity, which needs no data. R is a rank. The schemes are

    matrices    w_OI  ~  u_OR v_RI, for linear layers and kernels of size 1
    channel     a k x k convolution to R channels, then 1 x 1
    spatial     a k x 1 convolution to R channels, then 1 x k
    tucker      1 x 1 to R channels, then k x k from R to R', then 1 x 1 (Tucker-2)

Source: M. Jaderberg, A. Vedaldi, A. Zisserman, "Speeding up Convolutional Neural Networks with Low
Rank Expansions", 2014 (spatial); X. Zhang, J. Zou, K. He, J. Sun, "Accelerating Very Deep
Convolutional Networks for Classification and Detection", 2015 (channel); Y.-D. Kim et al.,
"Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile Applications", 2016
(Tucker-2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from penjing.arith.low_rank import balanced, energies, factors, refitted, ridged, root

SCHEMES = ("matrices", "channel", "spatial", "tucker")
RANKS = {"matrices": 1, "channel": 1, "spatial": 1, "tucker": 2}
"""How many ranks each scheme takes."""


def why_not(scheme: str, shape: Sequence[int]) -> str:
    """Why a scheme can't be used for a weight of this shape; empty if it can.

    >>> why_not("spatial", (8, 4, 3, 1)), why_not("spatial", (8, 4, 3, 3))
    ('its kernel has no two sides above 1', '')
    """
    kernel = shape[2:]
    if scheme == "matrices":
        return "its kernel is larger than 1" if math.prod(kernel) > 1 else ""
    if math.prod(kernel) == 1:
        return "it has no kernel larger than 1"
    if scheme == "spatial" and (len(kernel) != 2 or min(kernel) == 1):
        return "its kernel has no two sides above 1"
    return ""


def full_ranks(scheme: str, shape: Sequence[int], first: int | None = None) -> tuple[int, ...]:
    """The largest ranks, with which the factors give the weight exactly.

    Args:
        scheme: one of `SCHEMES` that can be used for the shape.
        shape: of the weight.
        first: the first rank of "tucker", which limits the second; its largest by default.

    >>> full_ranks("channel", (16, 4, 3, 3)), full_ranks("tucker", (16, 4, 3, 3), first=1)
    ((16,), (4, 9))
    """
    outputs, inputs, *kernel = shape
    taps = math.prod(kernel)
    if scheme == "spatial":
        return (min(inputs * kernel[0], outputs * kernel[1]),)
    if scheme == "tucker":
        most = min(inputs, outputs * taps)
        return most, min(outputs, (most if first is None else first) * taps)
    return (min(outputs, inputs * taps),)


def split(
    scheme: str, weight: Tensor, ranks: Sequence[int], moment: Tensor | None = None
) -> tuple[Tensor, ...]:
    """The weights of the smaller layers, in the order in which they are applied.

    Each has the shape that its layer needs. Full ranks give the weight exactly.

    Args:
        scheme: one of `SCHEMES` that can be used for the weight.
        weight: w, (O, C, k..), float64.
        ranks: one rank, or two for "tucker"; see `full_ranks`.
        moment: s, (I, I), float64, or None.

    >>> [tuple(part.shape) for part in split("spatial", torch.ones(8, 4, 3, 3).double(), [2])]
    [(2, 4, 3, 1), (8, 2, 1, 3)]
    """
    if scheme == "spatial":
        return _spatial(weight, ranks[0], moment)
    if scheme == "tucker":
        return _tucker(weight, ranks[0], ranks[1], moment)
    return _two(weight, ranks[0], moment)


def composed(scheme: str, parts: Sequence[Tensor]) -> Tensor:
    """The weight w', (O, I), that factors amount to.

    >>> parts = split("channel", torch.ones(2, 4, 3, 3).double(), [1])
    >>> composed("channel", parts).round(decimals=6).unique().tolist()
    [1.0]
    """
    first, last = parts[0], parts[-1].flatten(1)
    if scheme == "spatial":
        return last @ _by_taps(first.flatten(1), parts[-1].shape[3])
    if scheme == "tucker":
        taps = math.prod(parts[1].shape[2:])
        return last @ parts[1].flatten(1) @ _by_taps(first.flatten(1), taps)
    return last @ first.flatten(1)


def rebalanced(parts: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The same factors, with the last two balanced (`penjing.arith.low_rank.balanced`).

    >>> [part.item() for part in rebalanced((torch.tensor([[2.0]]), torch.tensor([[8.0]])))]
    [4.0, 4.0]
    """
    *before, first, last = parts
    columns = last.movedim(1, -1)
    left, right = balanced(columns.flatten(0, -2), first.flatten(1))
    return *before, right.view_as(first), left.view_as(columns).movedim(-1, 1).contiguous()


def kept(scheme: str, weight: Tensor, moment: Tensor | None = None) -> Tensor:
    """The share of E|w x|^2 that the factors of each rank keep, (full rank,), growing to 1.

    "spatial" is fitted to the data in its second factor only, as `split` does it. For "tucker" use
    `kept_by_pairs`.

    >>> share = kept("matrices", torch.diag(torch.tensor([3.0, 1.0])).double())
    >>> share.round(decimals=4).tolist()
    [0.9, 1.0]
    """
    if scheme == "spatial" and moment is not None:
        first, _ = _columns(weight, full_ranks("spatial", weight.shape)[0], moment)
        rows = _by_taps(first, weight.shape[3])
        energy = _energies_behind(rows, weight, moment).sum(1)
        reached = energy.view(-1, weight.shape[3]).sum(1).cumsum(0)
        return _share(reached, _whole(weight, moment))
    if scheme == "spatial":
        reached = energies(_column_matrix(weight))
    else:
        reached = energies(weight.flatten(1), None if moment is None else root(moment))
    return _share(reached, reached[-1])


def kept_by_pairs(
    weight: Tensor, firsts: Sequence[int], moment: Tensor | None = None
) -> dict[int, Tensor]:
    """For "tucker": by first rank, the share of E|w x|^2 kept for each second rank.

    Args:
        weight: w, (O, C, k..), float64.
        firsts: the first ranks to examine.
        moment: s, (I, I), or None.

    >>> shares = kept_by_pairs(torch.ones(4, 2, 3, 3).double(), [1])
    >>> shares[1].round(decimals=4).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    full, taps = full_ranks("tucker", weight.shape)[0], math.prod(weight.shape[2:])
    if moment is None:
        moment = torch.eye(weight[0].numel(), dtype=weight.dtype)
    first, _ = _inputs(weight, full, moment)
    rows = _energies_behind(_by_taps(first, taps), weight, moment, squared=False)
    whole, shares = _whole(weight, moment), {}
    for rank in firsts:
        reached = rows[: rank * taps]
        values = torch.linalg.eigvalsh(reached.T @ reached).flip(0).clamp_min(0.0)
        most = full_ranks("tucker", weight.shape, rank)[1]
        shares[rank] = _share(values.cumsum(0)[:most], whole)
    return shares


def _two(weight: Tensor, rank: int, moment: Tensor | None) -> tuple[Tensor, Tensor]:
    outputs, _, *kernel = weight.shape
    square_root = None if moment is None else root(moment)
    left, right = factors(weight.flatten(1), rank, square_root)
    return right.view(rank, *weight.shape[1:]), left.view(outputs, rank, *[1] * len(kernel))


def _spatial(weight: Tensor, rank: int, moment: Tensor | None) -> tuple[Tensor, Tensor]:
    outputs, inputs, high, wide = weight.shape
    first, last = _columns(weight, rank, moment)
    last = last.view(outputs, wide, rank).transpose(1, 2).flatten(1)
    if moment is not None:
        last = refitted(_by_taps(first, wide), last, weight.flatten(1), moment)
    parts = (first.view(rank, inputs, high, 1), last.view(outputs, rank, 1, wide))
    first, last = rebalanced(parts)
    return first, last


def _tucker(
    weight: Tensor, first_rank: int, last_rank: int, moment: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    outputs, inputs, *kernel = weight.shape
    taps, ones = math.prod(kernel), [1] * len(kernel)
    first, core = _inputs(weight, first_rank, moment)
    core = core.view(outputs, taps, first_rank).transpose(1, 2).flatten(1)
    square_root = None
    if moment is not None:
        rows = _by_taps(first, taps)
        core = refitted(rows, core, weight.flatten(1), moment)
        square_root = root(rows @ moment @ rows.T)
    left, right = factors(core, last_rank, square_root)
    return (
        first.view(first_rank, inputs, *ones),
        right.view(last_rank, first_rank, *kernel),
        left.view(outputs, last_rank, *ones),
    )


def _column_matrix(weight: Tensor) -> Tensor:
    """w_OCij as a matrix (O j, C i): what each column of a window adds to the outputs."""
    return weight.permute(0, 3, 1, 2).flatten(2).flatten(0, 1)


def _columns(weight: Tensor, rank: int, moment: Tensor | None) -> tuple[Tensor, Tensor]:
    """The first factor of "spatial", (R, C i), and the second without data, (O j, R)."""
    square_root = None
    if moment is not None:
        _, inputs, high, wide = weight.shape
        dims = moment.view(inputs, high, wide, inputs, high, wide)
        column = torch.einsum("aijbkj->aibk", dims).reshape(inputs * high, inputs * high)
        square_root = root(column / wide)
    last, first = factors(_column_matrix(weight), rank, square_root)
    return first, last


def _inputs(weight: Tensor, rank: int, moment: Tensor | None) -> tuple[Tensor, Tensor]:
    """The first factor of "tucker", (R, C), and the rest without the other ranks, (O k.., R)."""
    inputs, square_root = weight.shape[1], None
    if moment is not None:
        taps = math.prod(weight.shape[2:])
        dims = moment.view(inputs, taps, inputs, taps)
        square_root = root(torch.einsum("atbt->ab", dims) / taps)
    matrix = weight.flatten(2).transpose(1, 2).flatten(0, 1)
    rest, first = factors(matrix, rank, square_root)
    return first, rest


def _by_taps(first: Tensor, taps: int) -> Tensor:
    """What a first factor makes of a window: (R t, n t), if it makes the same of each of t parts.

    The parts are the columns of a window for "spatial", and its positions for "tucker".
    """
    eye = torch.eye(taps, dtype=first.dtype)
    return torch.einsum("ri,jk->rjik", first, eye).flatten(2).flatten(0, 1)


def _energies_behind(first: Tensor, weight: Tensor, moment: Tensor, squared: bool = True) -> Tensor:
    """What each row of a first factor (P, I) adds to the energy, given the rows before: (P, O).

    The rows l^-1 p s w^T, with l l^T = p s p^T, are the outputs' parts along the directions that
    each row adds. Their squares are energies.
    """
    moment = ridged(moment)
    read = first @ moment
    lower = torch.linalg.cholesky(ridged(read @ first.T, 1e-10))
    parts: Tensor = torch.linalg.solve_triangular(lower, read @ weight.flatten(1).T, upper=False)
    return parts.square() if squared else parts


def _whole(weight: Tensor, moment: Tensor) -> Tensor:
    """E|w x|^2."""
    matrix = weight.flatten(1)
    return ((matrix @ ridged(moment)) * matrix).sum()


def _share(reached: Tensor, whole: Tensor) -> Tensor:
    return (reached / whole.clamp_min(1e-300)).clamp_max(1.0)
