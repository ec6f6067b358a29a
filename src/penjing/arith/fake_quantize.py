"""Fake quantization: real numbers rounded to a grid of integers, with gradients that can train.

    q = clamp(round(x / scale) + zero_point, low, high)        x' = (q - zero_point) * scale

An operator of its own (`torch.ops.penjing.fake_quantize`), because it stands in graphs: what a
network computes with it is what a runtime computes with integers.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def fake_quantize(values: Tensor, scale: Tensor, zero_point: int, low: int, high: int) -> Tensor:
    """The values after rounding to the grid and back.

    Its gradient is the straight-through estimator for the values and the learned step size for
    the scale, which is divided by sqrt(n high) with n values to a scale.

    Args:
        values: any shape.
        scale: the step of the grid; of shape () for all values, (O,) for one to each row of
            dimension 0, or (O, G) for G groups of equal length in each row.
        zero_point: the integer that stands for 0.
        low, high: the smallest and the largest integer.

    Source: S. Esser et al., "Learned Step Size Quantization", 2020; round half to even, as
    ONNX Runtime and LiteRT do.

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
    """The values with all that share a scale along the last dimension."""
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
    grid = steps.round().clamp_(low, high)
    inside = ((steps >= low) & (steps <= high)).to(gradient.dtype)
    of_values = gradient * inside.view_as(gradient)
    if not ctx.needs_input_grad[1]:
        return of_values, None, None, None, None
    of_steps = grid.sub_(steps.mul_(inside)).mul_(_by_scale(gradient, scale))
    of_scale = of_steps.sum(-1) if scale.dim() else of_steps.sum()
    several = values.dim() > 1 and not scale.dim()  # activations: counted for one sample
    count = values.numel() / (len(values) if several else max(1, scale.numel()))
    damping = 1 / math.sqrt(max(1.0, count) * max(high, 1))
    return of_values, of_scale * damping, None, None, None


_operator.register_autograd(_gradients, setup_context=_keep)
FAKE_QUANTIZE = torch.ops.penjing.fake_quantize.default
"""The operator as it stands in graphs."""
