"""Quantizer: choose ranges, scales and zero points, and quantize weights and biases.

    q = clamp(round(x / scale) + zero_point, low, high)        x' = (q - zero_point) * scale

Source: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", 2018; M. Nagel et al., "A White Paper on Neural Network
Quantization", 2021, for ranges of least mean squared error.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from penjing.arith.fake_quantize import fake_quantize
from penjing.errors import InputError

RangeMethod = Literal["mse", "percentile", "minmax"]
TINY = 1e-12
INT16 = (-(2**15), 2**15 - 1)
"""The smallest and the largest integer of a value with 16 bits, whose zero point is 0."""
COARSER = 256 * (1 + 2**-20)
"""How many times larger the scale of int8 is that covers the range of int16. A little is added to
256, so that no other value has the scale by accident, as every tanh has 1 / 128."""


def activation_range(
    values: Tensor,
    method: RangeMethod,
    bits: int = 8,
    percentile: float = 99.99,
    steps: int = 80,
) -> tuple[float, float]:
    """The range (low, high) that 2^bits levels should cover for these values; it includes zero.

    `"mse"` shrinks the full range step by step and takes the one with the least squared error.
    `"percentile"` cuts off the values beyond a percentile, and `"minmax"` takes the full range.

    Args:
        values: any shape.
        method: how to choose the range.
        bits: the number of bits.
        percentile: the upper percentile for `"percentile"`.
        steps: the number of ranges that `"mse"` tries.

    Raises:
        InputError: a value isn't finite.

    >>> activation_range(torch.tensor([0.0, 1.0, 4.0]), "minmax")
    (0.0, 4.0)
    """
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    if not (torch.isfinite(torch.tensor([low, high])).all()):
        raise InputError(f"the range {low} to {high} can't be quantized; check the inputs")
    if method == "percentile":
        ends = torch.tensor([1 - percentile / 100, percentile / 100], dtype=values.dtype)
        quantiles = torch.quantile(values, ends)
        return min(float(quantiles[0]), 0.0), max(float(quantiles[1]), 0.0)
    if method == "minmax" or high - low < TINY:
        return low, high
    best, chosen, levels = float("inf"), (low, high), 2**bits - 1
    for step in range(steps):
        share = 1 - 0.9 * step / steps
        scale, zero = scale_and_zero_point(low * share, high * share, levels)
        rounded = fake_quantize(values, torch.tensor(scale), zero, 0, levels)
        error = float((rounded - values).square().mean())
        if error < best:
            best, chosen = error, (low * share, high * share)
    return chosen


def scale_and_zero_point(low: float, high: float, levels: int = 255) -> tuple[float, int]:
    """The scale and zero point with which the integers 0..`levels` cover low..high.

    Zero is represented exactly.

    >>> scale_and_zero_point(-64.0, 63.5)
    (0.5, 128)
    """
    # if low and high are both zero, any scale will do
    scale = max((high - low) / levels, TINY) if high > low else 1 / levels
    return scale, min(max(round(-low / scale), 0), levels)


def weight_ends(bits: int) -> tuple[int, int]:
    """The smallest and the largest integer of a weight with so many bits.

    Eight bits leave out -128, which kernels don't allow. Fewer bits use all integers.

    >>> weight_ends(8), weight_ends(2)
    ((-127, 127), (-2, 1))
    """
    top = 2 ** (bits - 1) - 1
    return (-top if bits == 8 else -top - 1), top


def weight_scales(
    weight: Tensor, bits: int = 8, group: int | None = None, steps: int = 80
) -> Tensor:
    """Symmetric scales of least squared error.

    If there is one more negative than positive integer, a scale may be negative, so that the
    longer side serves the larger weights.

    Args:
        weight: (O, ...).
        bits: the number of bits.
        group: the number of weights that share a scale; None for a whole output channel.
        steps: the number of scales to try.

    Returns:
        (O,), or (O, G) for groups.
    """
    low, high = weight_ends(bits)
    rows = weight.detach().flatten(1).double()
    rows = rows if group is None else rows.reshape(len(rows), -1, group)
    largest = rows.abs().amax(-1).clamp_min(TINY)
    signs = (1, -1) if low != -high else (1,)
    best = torch.full_like(largest, float("inf"))
    scales = largest / high
    for sign in signs:
        for step in range(steps):
            scale = sign * largest * (1 - 0.9 * step / steps) / max(high, -low)
            error = (fake_quantize(rows, scale, 0, low, high) - rows).square().sum(-1)
            scales = torch.where(error < best, scale, scales)
            best = torch.minimum(error, best)
    return scales.float()


def quantized(weight: Tensor, scales: Tensor, low: int, high: int) -> Tensor:
    """The integers of a weight as int8, in its shape; scales are (O,), or (O, G) for groups."""
    rows = weight.detach().reshape(*scales.shape, -1)
    codes = (rows / scales.unsqueeze(-1)).round().clamp(low, high)
    return codes.to(torch.int8).view(weight.shape)


def quantized_bias(bias: Tensor, scales: Tensor) -> Tensor:
    """The int32 codes of a bias; its scale is input scale x weight scale, as in the accumulator."""
    top = 2.0**31 - 1
    return (bias.detach().double() / scales.double()).round().clamp(-top, top).to(torch.int32)
