"""Binary weights and activations: -1 and 1, with gradients. Zero counts as 1.

The functions are operators (`torch.ops.penjing.binarize`, `torch.ops.penjing.sign`), so that graphs
can contain them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from penjing.arith.ternary import per_output


def binarize(weight: Tensor, scale: Tensor | None = None) -> Tensor:
    """sign(w) times the scale of the output channel, with sign(0) = 1.

    The gradient of the weight is that of the result times the scale where |w| <= 1, and 0 elsewhere
    (the clipped straight-through estimator). The gradient of the scale is exact.

    Args:
        weight: (O, ...).
        scale: (O,), or None for -1 and 1 without a scale.

    Source: M. Rastegari et al., "XNOR-Net: ImageNet Classification Using Binary Convolutional
    Neural Networks", 2016, where the scale starts as the mean magnitude.

    >>> binarize(torch.tensor([[0.1, -0.9, 0.0]]), torch.tensor([0.5]))
    tensor([[ 0.5000, -0.5000,  0.5000]])
    """
    binary: Tensor = BINARIZE(weight, scale)
    return binary


def sign(values: Tensor) -> Tensor:
    """-1 below zero, else 1; any shape.

    Its gradient is that of a piecewise quadratic: 2 + 2x for -1 <= x < 0, 2 - 2x for 0 <= x < 1,
    and 0 elsewhere.

    Source: Z. Liu et al., "Bi-Real Net: Enhancing the Performance of 1-bit CNNs with Improved
    Representational Capability and Advanced Training Algorithm", 2018.

    >>> sign(torch.tensor([-0.1, 0.0, 3.0]))
    tensor([-1.,  1.,  1.])
    """
    result: Tensor = SIGN(values)
    return result


def signs(values: Tensor) -> Tensor:
    """-1 and 1 in the shape and type of the values, without gradients."""
    return (values.detach() >= 0).to(values.dtype).mul_(2).sub_(1)


@torch.library.custom_op("penjing::binarize", mutates_args=())
def _binarize(weight: Tensor, scale: Tensor | None) -> Tensor:
    binary = signs(weight)
    return binary if scale is None else binary.mul_(per_output(scale, weight))


@_binarize.register_fake
def _(weight: Tensor, scale: Tensor | None) -> Tensor:
    return torch.empty_like(weight)


def _keep_both(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*(tensor for tensor in inputs if tensor is not None))


def _of_weight(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    weight, *scales = ctx.saved_tensors
    of_weight = gradient * (weight.abs() <= 1)
    if not scales:
        return of_weight, None
    of_scale = (gradient * signs(weight)).flatten(1).sum(1)
    return of_weight * per_output(scales[0], weight), of_scale


@torch.library.custom_op("penjing::sign", mutates_args=())
def _sign(values: Tensor) -> Tensor:
    return signs(values)


@_sign.register_fake
def _(values: Tensor) -> Tensor:
    return torch.empty_like(values)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _of_values(ctx: Any, gradient: Tensor) -> Tensor:
    (values,) = ctx.saved_tensors
    slope: Tensor = (2 - 2 * values.abs()).clamp_min_(0)
    return gradient * slope


_binarize.register_autograd(_of_weight, setup_context=_keep_both)
_sign.register_autograd(_of_values, setup_context=_keep)
BINARIZE = torch.ops.penjing.binarize.default
SIGN = torch.ops.penjing.sign.default
"""The operators as graphs contain them."""
