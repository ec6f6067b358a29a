"""Ternary weights: -1, 0 and 1, times one or two scales per output channel, with gradients.

    t_o = threshold mean|w_o|      c = 1 where w > t, -1 where w < -t, else 0
    w' = positive_o where c is 1, -negative_o where c is -1, else 0

Shapes: w_OK is a weight with all dimensions flattened except the first; a scale is (O,).

The function is an operator (`torch.ops.penjing.ternarize`), so that graphs can contain it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def ternarize(weight: Tensor, positive: Tensor, negative: Tensor, threshold: float) -> Tensor:
    """Round a weight to three values per output channel: -negative, 0 and positive.

    With one scale, given as both tensors, the gradient of the weight is passed straight through.
    With two scales it is multiplied by the scale of the weight's code, or by 1 if the code is 0.
    The gradient of a scale is the sum of the gradients of its weights.

    Args:
        weight: (O, ...).
        positive, negative: the scales, (O,).
        threshold: the share of the mean magnitude up to which a weight becomes 0.

    Source: F. Li et al., "Ternary Weight Networks", 2016 (threshold 0.7, one scale); C. Zhu et
    al., "Trained Ternary Quantization", 2017 (two scales and their gradients).

    >>> scale = torch.tensor([2.0])
    >>> ternarize(torch.tensor([[0.1, -0.9, 0.5]]), scale, scale, 0.7)  # 0.7 mean|w| = 0.35
    tensor([[ 0., -2.,  2.]])
    """
    ternary: Tensor = TERNARIZE(weight, positive, negative, threshold)
    return ternary


def ternary_codes(weight: Tensor, threshold: float) -> Tensor:
    """The codes -1, 0 and 1 of a weight, in its shape and type.

    >>> ternary_codes(torch.tensor([[0.1, -0.9, 0.5]]), 0.7)
    tensor([[ 0., -1.,  1.]])
    """
    limit = weight.detach().flatten(1).abs().mean(1).mul_(threshold)
    return weight.detach().sign() * (weight.detach().abs() > per_output(limit, weight))


def ternary_scales(weight: Tensor, codes: Tensor, sign: int = 0) -> Tensor:
    """The mean magnitude of the weights whose code isn't 0, or is `sign` if that is given: (O,).

    These scales have the least squared error. A channel without such codes gets the mean magnitude
    of all its weights.

    >>> weight = torch.tensor([[0.1, -0.9, 0.5]])
    >>> ternary_scales(weight, ternary_codes(weight, 0.7))
    tensor([0.7000])
    """
    rows, chosen = weight.detach().flatten(1).abs(), codes.flatten(1)
    chosen = chosen != 0 if sign == 0 else chosen == sign
    count = chosen.sum(1)
    return torch.where(count > 0, (rows * chosen).sum(1) / count.clamp_min(1), rows.mean(1))


def per_output(scale: Tensor, weight: Tensor) -> Tensor:
    """A scale (O,), reshaped so that it multiplies a weight (O, ...)."""
    return scale.view(-1, *[1] * (weight.dim() - 1))


@torch.library.custom_op("penjing::ternarize", mutates_args=())
def _operator(weight: Tensor, positive: Tensor, negative: Tensor, threshold: float) -> Tensor:
    codes = ternary_codes(weight, threshold)
    above, below = codes.clamp_min(0), codes.clamp_max(0)
    return above * per_output(positive, weight) + below * per_output(negative, weight)


@_operator.register_fake
def _(weight: Tensor, positive: Tensor, negative: Tensor, threshold: float) -> Tensor:
    return torch.empty_like(weight)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    weight, positive, negative, ctx.threshold = inputs
    ctx.single = positive is negative
    ctx.save_for_backward(weight, positive, negative)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    weight, positive, negative = ctx.saved_tensors
    codes = ternary_codes(weight, ctx.threshold)
    above, below = codes.clamp_min(0), codes.clamp_max(0)
    of_weight = gradient
    if not ctx.single:
        scales = above * per_output(positive, weight) - below * per_output(negative, weight)
        of_weight = gradient * torch.where(codes == 0, 1.0, scales)
    of_positive, of_negative = ((gradient * part).flatten(1).sum(1) for part in (above, below))
    return of_weight, of_positive, of_negative, None


_operator.register_autograd(_gradients, setup_context=_keep)
TERNARIZE = torch.ops.penjing.ternarize.default
"""The operator as graphs contain it."""
