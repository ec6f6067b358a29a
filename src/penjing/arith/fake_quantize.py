"""Fake quantization: round real numbers as integers would, with gradients for training.

    q = clamp(round(x / scale) + zero_point, low, high)        x' = (q - zero_point) * scale

The function is an operator (`torch.ops.penjing.fake_quantize`), so that graphs can contain it. A
network with it computes what a runtime computes with integers.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def fake_quantize(values: Tensor, scale: Tensor, zero_point: int, low: int, high: int) -> Tensor:
    """Quantize values and convert them back to real numbers.

    The gradient of the values is the straight-through estimator. The gradient of the scale is that
    of the learned step size, divided by sqrt(n high) for n values per scale.

    Args:
        values: any shape.
        scale: the difference between neighbouring levels. Its shape is () for one scale, (O,) for
            one scale per index of dimension 0, or (O, G) for G groups of equal length in each.
        zero_point: the integer that stands for 0.
        low, high: the smallest and the largest integer.

    Source: S. Esser et al., "Learned Step Size Quantization", 2020. Ties round to even, as in
    ONNX Runtime and LiteRT.

    >>> fake_quantize(torch.tensor([0.24, 0.26, 9.0]), torch.tensor(0.5), 0, 0, 15)
    tensor([0.0000, 0.5000, 7.5000])
    """
    rounded: Tensor = FAKE_QUANTIZE(values, scale, zero_point, low, high)
    return rounded


@torch.library.custom_op("penjing::fake_quantize", mutates_args=())
def _operator(values: Tensor, scale: Tensor, zero_point: int, low: int, high: int) -> Tensor:
    steps = _by_scale(values, scale) / _step(scale)
    steps.round_().clamp_(low - zero_point, high - zero_point)
    return steps.mul_(_step(scale)).view_as(values)


@_operator.register_fake
def _(values: Tensor, scale: Tensor, zero_point: int, low: int, high: int) -> Tensor:
    return torch.empty_like(values)


def _by_scale(values: Tensor, scale: Tensor) -> Tensor:
    """Reshape values so that those with a common scale lie along the last dimension."""
    return values.reshape(*scale.shape, -1) if scale.dim() else values


def _step(scale: Tensor) -> Tensor:
    return scale.unsqueeze(-1) if scale.dim() else scale


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    values, scale, zero_point, low, high = inputs
    ctx.save_for_backward(values, scale)
    ctx.ends = low - zero_point, high - zero_point


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    values, scale = ctx.saved_tensors
    low, high = ctx.ends
    steps = _by_scale(values, scale) / _step(scale)
    rounded = steps.round().clamp_(low, high)
    inside = ((steps >= low) & (steps <= high)).to(gradient.dtype)
    of_values = gradient * inside.view_as(gradient)
    if not ctx.needs_input_grad[1]:
        return of_values, None, None, None, None
    of_steps = rounded.sub_(steps.mul_(inside)).mul_(_by_scale(gradient, scale))
    of_scale = of_steps.sum(-1) if scale.dim() else of_steps.sum()
    several = values.dim() > 1 and not scale.dim()  # activations: count the values of one sample
    count = values.numel() / (len(values) if several else max(1, scale.numel()))
    damping = 1 / math.sqrt(max(1.0, count) * max(high, 1))
    return of_values, of_scale * damping, None, None, None


_operator.register_autograd(_gradients, setup_context=_keep)
FAKE_QUANTIZE = torch.ops.penjing.fake_quantize.default
"""The operator as graphs contain it."""
