"""Saturation: where the sum of two products exceeds 16 bits on x86 processors without VNNI.

Such a processor multiplies unsigned by signed bytes in pairs and adds the two products in 16 bits
(the instruction `vpmaddubsw`). A sum above 32767 or below -32768 is clamped. Which products form a
pair depends on how a kernel packs the weights. So the two largest weights of one sign decide: if
their sum fits, every pair fits, in any order.

    top * (a + b) <= 32767      a >= b: the two largest weights of one sign; inputs are in 0..top

With inputs of eight bits this means a + b <= 128. Weights of seven bits or fewer always fit.

Source: Intel, "Intel 64 and IA-32 Architectures Software Developer's Manual", PMADDUBSW, 2024. The
remedy is related to `reduce_range` of ONNX Runtime and `overflow_fix` of NNCF, which take a bit
from all weights or from the whole first layer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from penjing.arith.quantizer import quantized

SIXTEEN_BITS = 2**15 - 1
HAIR = 1 + 2**-22
"""The factor by which a scale grows if a weight lies exactly between two integers."""


def most_in_a_pair(top: int) -> int:
    """The largest allowed sum of two weights of one sign, for inputs in 0..`top`.

    >>> most_in_a_pair(255), most_in_a_pair(127)
    (128, 258)
    """
    return SIXTEEN_BITS // max(top, 1)


def pair_sums(codes: Tensor) -> Tensor:
    """The sum of the two largest weights of one sign, for each output channel: (O,).

    Args:
        codes: integers, (O, ...).

    >>> pair_sums(torch.tensor([[100, 27, -90, -60], [5, -3, 2, 0]]))
    tensor([150,   7])
    """
    rows = codes.flatten(1).to(torch.int32)
    ends = torch.stack([rows, -rows]).clamp_min(0)
    return ends.topk(min(2, rows.shape[1]), dim=-1).values.sum(-1).amax(0)


def saturates(codes: Tensor, top: int) -> Tensor:
    """Which output channels may exceed 16 bits, as a mask (O,)."""
    return pair_sums(codes) > most_in_a_pair(top)


def trimmed(codes: Tensor, top: int) -> Tensor:
    """The codes of least squared difference that can't exceed 16 bits; most stay the same.

    Args:
        codes: integers, (O, ...).
        top: the largest integer of the inputs; the smallest is 0.

    >>> trimmed(torch.tensor([[100, 30, 29, -90]]), 255)
    tensor([[ 99,  29,  29, -90]], dtype=torch.int32)
    """
    rows, most = codes.flatten(1).to(torch.int32), most_in_a_pair(top)
    positive, negative = (_within(end.clamp_min(0), most) for end in (rows, -rows))
    return (positive - negative).view_as(codes)


def _within(rows: Tensor, most: int) -> Tensor:
    """Nonnegative rows whose two largest integers are lowered so that they add up to `most`."""
    largest = torch.zeros_like(rows, dtype=torch.bool)
    largest.scatter_(1, rows.argmax(1, keepdim=True), True)
    best, least = rows, torch.full_like(rows[:, :1], torch.inf, dtype=torch.float64)
    for i in range((most + 1) // 2, most + 1):  # the largest may be i, the others the rest
        lowered = torch.where(largest, rows.clamp_max(i), rows.clamp_max(most - i))
        error = (rows - lowered).double().square().sum(1, keepdim=True)
        best, least = torch.where(error < least, lowered, best), torch.minimum(error, least)
    return best


def scales_that_fit(weight: Tensor, scales: Tensor, low: int, high: int, top: int) -> Tensor:
    """The scales, each enlarged just enough that its channel can't exceed 16 bits.

    Args:
        weight: real numbers, (O, ...).
        scales: (O,). If all are equal, they stay equal.
        low, high: the smallest and the largest integer of a weight.
        top: the largest integer of the inputs; the smallest is 0.

    >>> scales_that_fit(torch.tensor([[127.0, 100.0, -3.0]]), torch.ones(1), -127, 127, 255)
    tensor([1.7699])
    """
    over = saturates(quantized(weight, scales, low, high), top)
    if not bool(over.any()):
        return scales
    least = _least_scales(weight.detach().flatten(1).double(), high, most_in_a_pair(top))
    grown = torch.where(over, torch.maximum(scales.abs().double(), least), scales.double())
    if bool((scales == scales[0]).all()):
        grown = grown.amax().expand_as(grown)
    grown = grown.float()
    while bool((over := saturates(quantized(weight, grown, low, high), top)).any()):
        grown = torch.where(over, grown * HAIR, grown)
    return grown


def _least_scales(rows: Tensor, high: int, most: int) -> Tensor:
    """The smallest scale at which the two largest weights of each sign round to at most `most`.

    A pair a >= b rounds to at most i and most - i if a < (i + 1/2) s and b < (most - i + 1/2) s.
    The i with the smallest s is taken.
    """
    ends = torch.stack([rows, -rows]).clamp_min(0)
    pairs = ends.topk(min(2, rows.shape[1]), dim=-1).values
    larger, smaller = pairs[..., :1], pairs[..., 1:].sum(-1, keepdim=True)
    i = torch.arange((most + 1) // 2, high + 1, dtype=rows.dtype)
    of_larger = torch.where(i < high, larger / (i + 0.5), 0.0)  # larger weights are clamped there
    return torch.maximum(of_larger, smaller / (most - i + 0.5)).amin(-1).amax(0)
