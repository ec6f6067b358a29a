"""Codebooks: a few values that stand for many numbers, and which value each number gets.

Shapes: w_ON is a weight with a row for each output, v_OK are the K values of each row.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 60  # of k-means at most; it stops where nothing moves


def k_means(numbers: Tensor, count: int) -> Tensor:
    """At most `count` values that are near to numbers in the mean square, in ascending order.

    The values start evenly spaced between the smallest and the largest number, so the rare large
    ones, which matter most, get values of their own. A value that no number is nearest to moves to
    where numbers are dense. Numbers that have so few distinct values keep them.

    Args:
        numbers: any shape, not empty.
        count: the number of values, 1 or more.

    Source: S. Han, H. Mao, W. Dally, "Deep Compression: Compressing Deep Neural Networks with
    Pruning, Trained Quantization and Huffman Coding", 2016, section 3.

    >>> k_means(torch.tensor([0.0, 1.0, 9.0, 11.0]), 2).tolist()
    [0.5, 10.0]
    """
    ascending = numbers.detach().flatten().sort().values
    distinct: Tensor = torch.unique_consecutive(ascending)
    if len(distinct) <= count:
        return distinct
    ascending = ascending.double()
    sums = torch.cat([ascending.new_zeros(1), ascending.cumsum(0)])
    low, high = float(distinct[0]), float(distinct[-1])
    values = torch.linspace(low, high, count, dtype=torch.float64, device=ascending.device)
    last = torch.tensor([len(ascending)], device=ascending.device)
    for _ in range(ROUNDS):  # who is nearest to a value lies side by side
        ends = torch.cat([torch.searchsorted(ascending, _between(values), right=True), last])
        starts = torch.cat([torch.zeros_like(last), ends[:-1]])
        members = ends - starts
        moved = torch.where(members > 0, (sums[ends] - sums[starts]) / members.clamp_min(1), values)
        empty = members == 0
        if bool(empty.any()):  # as in the gap that removed weights leave around zero
            wanted = int(empty.sum())
            places = torch.linspace(0, len(ascending) - 1, wanted + 2, dtype=torch.float64)
            moved[empty] = ascending[places[1:-1].long()]
            moved = moved.sort().values
        if bool((moved == values).all()):
            break
        values = moved
    ascending_values: Tensor = torch.unique(values.to(numbers.dtype))
    return ascending_values


def nearest(numbers: Tensor, values: Tensor) -> Tensor:
    """The index of the nearest of the values, which ascend, in the shape of the numbers.

    >>> nearest(torch.tensor([-3.0, 0.4, 0.6]), torch.tensor([0.0, 1.0])).tolist()
    [0, 0, 1]
    """
    return torch.bucketize(numbers.detach(), _between(values))


def _between(values: Tensor) -> Tensor:
    """Where one of the values, which ascend, stops being the nearest one."""
    return (values[1:] + values[:-1]) / 2


def assigned_in_turn(
    weight: Tensor,
    moments: Tensor,
    values: Tensor,
    bits: Tensor,
    price: float,
    support: Tensor | None = None,
) -> Tensor:
    """Give each weight one of its row's values, so that error and bits grow least at every step.

    Columns come in the order of the magnitude of their inputs. With U the upper Cholesky factor of
    the inverse of the moments, value v costs ((w - v) / U_jj)^2 + price bits(v) in column j. The
    error that remains is pushed onto the columns that are still to come, as `rounded_in_turn` does.

    Args:
        weight: w, (O, N).
        moments: E[x x^T] of the inputs, positive definite, (N, N).
        values: v, (O, K).
        bits: what each value takes, (K,) or (O, K).
        price: the error that a bit may cost, 0 or more.
        support: where a weight may differ from zero, bool (O, N); None for everywhere.

    Returns:
        The index of each weight's value, (O, N); -1 for zeros outside the support.

    Source: S. Wiedemann et al., "DeepCABAC: A Universal Compression Algorithm for Deep Neural
    Networks", 2020 (error plus bits); E. Frantar et al., "GPTQ", 2023 (the error moves on).

    >>> two_alike = torch.tensor([[1.01, 1.0], [1.0, 1.01]])
    >>> values = torch.tensor([[0.0, 1.0]])
    >>> assigned_in_turn(torch.tensor([[0.4, 0.4]]), two_alike, values, torch.ones(2), 0.0).tolist()
    [[0, 1]]
    """
    inputs = weight.shape[1]
    moments = moments.double()
    order = moments.diagonal().argsort(descending=True, stable=True)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments[order][:, order]))
    factor = torch.linalg.cholesky(inverse, upper=True)
    rest, values = weight.double()[:, order], values.double()
    kept = None if support is None else support[:, order]
    codes = torch.empty(rest.shape, dtype=torch.long)
    for column in range(inputs):
        real, size = rest[:, column], factor[column, column]
        cost = ((real[:, None] - values) / size).square() + price * bits
        index = cost.argmin(1)
        chosen = values.gather(1, index[:, None])[:, 0]
        if kept is not None:
            index = torch.where(kept[:, column], index, -1)
            chosen = torch.where(kept[:, column], chosen, 0.0)
        error = (real - chosen) / size
        rest[:, column + 1 :] -= torch.outer(error, factor[column, column + 1 :])
        codes[:, order[column]] = index
    return codes


def code_bits(codes: Tensor, count: int) -> Tensor:
    """-log2 of how often each of `count` codes occurs; a code that never does counts as half.

    >>> code_bits(torch.tensor([0, 0, 0, 1]), 2).round(decimals=2).tolist()
    [0.42, 2.0]
    """
    counts = torch.bincount(codes.flatten(), minlength=count).double()
    return -(counts.clamp_min(0.5) / max(1, codes.numel())).log2()


def entropy_bits(codes: Tensor) -> float:
    """The bits of all codes together, by their entropy: what an ideal coder with their table needs.

    >>> entropy_bits(torch.tensor([3, 5, 5, 3]))
    4.0
    """
    _, counts = torch.unique(codes, return_counts=True)
    shares = counts.double() / codes.numel()
    return float(-(counts * shares.log2()).sum()) + 0.0
