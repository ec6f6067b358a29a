"""Ranges and rounding: from real numbers to integers and back. Pure arithmetic, no network.

    q = clamp(round(x / scale) + zero_point, low, high)        x' = (q - zero_point) * scale

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", 2018; ranges by mean squared error as in Nagel et al., "A White
Paper on Neural Network Quantization", 2021.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from penjing.errors import InputError

RangeMethod = Literal["mse", "percentile", "minmax"]
TINY = 1e-12


def activation_range(
    values: Tensor, method: RangeMethod, percentile: float = 99.99, steps: int = 64
) -> tuple[float, float]:
    """The (low, high) that uint8 should span for these values; always holds zero.

    `"mse"` shrinks the full range step by step and keeps the least squared error.

    >>> activation_range(torch.tensor([0.0, 1.0, 4.0]), "minmax")
    (0.0, 4.0)
    """
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    if not (torch.isfinite(torch.tensor([low, high])).all()):
        raise InputError(f"a range from {low} to {high} can't be quantized; check the inputs")
    if method == "percentile":
        ends = torch.tensor([1 - percentile / 100, percentile / 100], dtype=values.dtype)
        found = torch.quantile(values, ends)
        return min(float(found[0]), 0.0), max(float(found[1]), 0.0)
    if method == "minmax" or high - low < TINY:
        return low, high
    best, chosen = float("inf"), (low, high)
    for step in range(steps):
        share = 1 - 0.7 * step / steps
        scale, zero = scale_and_zero_point(low * share, high * share)
        error = float((fake_quantized(values, scale, zero) - values).square().mean())
        if error < best:
            best, chosen = error, (low * share, high * share)
    return chosen


def scale_and_zero_point(low: float, high: float, levels: int = 255) -> tuple[float, int]:
    """The uint8 grid that spans low..high with zero on a grid point.

    >>> scale_and_zero_point(-64.0, 63.5)
    (0.5, 128)
    """
    scale = max((high - low) / levels, TINY)
    return scale, min(max(round(-low / scale), 0), levels)


def fake_quantized(values: Tensor, scale: float, zero_point: int, levels: int = 255) -> Tensor:
    """The values after rounding to the uint8 grid and back."""
    codes = ((values / scale).round() + zero_point).clamp(0, levels)
    return (codes - zero_point) * scale


def weight_scales(weight: Tensor, bits: int = 8, steps: int = 40) -> Tensor:
    """One symmetric scale per output channel (dimension 0) of least squared error; shape (O,).

    The grid is -(2^(bits-1) - 1) .. 2^(bits-1) - 1, without the lowest code.
    """
    rows = weight.detach().flatten(1).double()
    top = 2 ** (bits - 1) - 1
    largest = rows.abs().amax(1).clamp_min(TINY)
    best = torch.full_like(largest, float("inf"))
    scales = largest / top
    for step in range(steps):
        scale = largest * (1 - 0.5 * step / steps) / top
        rounded = (rows / scale[:, None]).round().clamp(-top, top) * scale[:, None]
        error = (rounded - rows).square().sum(1)
        scales = torch.where(error < best, scale, scales)
        best = torch.minimum(error, best)
    found: Tensor = scales.float()
    return found


def quantized_weight(weight: Tensor, scales: Tensor, bits: int = 8) -> Tensor:
    """int8 codes of a weight with one scale per output channel."""
    top = 2 ** (bits - 1) - 1
    shape = (-1, *[1] * (weight.dim() - 1))
    return (weight.detach() / scales.view(shape)).round().clamp(-top, top).to(torch.int8)


def quantized_bias(bias: Tensor, scales: Tensor) -> Tensor:
    """int32 codes of a bias on the grid of its accumulator, input scale x weight scale."""
    top = 2.0**31 - 1
    return (bias.detach().double() / scales.double()).round().clamp(-top, top).to(torch.int32)
