"""One rule per operator: how the dimensions of its output follow from those of its inputs."""

from __future__ import annotations

import operator
from typing import Any

import torch

from penjing.network.rules import contraction, elementwise, normalization, shaping, window
from penjing.network.trace import Rule, is_pointwise

aten = torch.ops.aten

RULES: dict[Any, Rule] = {
    # element by element, or with no effect on dimensions
    aten.dropout.default: elementwise.same,
    aten.dropout_.default: elementwise.same,
    aten.feature_dropout.default: elementwise.same,
    aten.alias.default: elementwise.same,
    aten.clone.default: elementwise.same,
    aten.contiguous.default: elementwise.same,
    aten.detach.default: elementwise.same,
    aten.detach_.default: elementwise.same,
    aten.lift_fresh_copy.default: elementwise.same,
    aten.to.dtype: elementwise.same,
    aten.to.dtype_layout: elementwise.same,
    aten.zeros_like.default: elementwise.same,
    aten.ones_like.default: elementwise.same,
    aten.softmax.int: elementwise.softmax,
    aten.log_softmax.int: elementwise.softmax,
    aten.mean.dim: elementwise.reduction,
    aten.sum.dim_IntList: elementwise.reduction,
    aten.amax.default: elementwise.reduction,
    # sums over a shared dimension
    aten.conv1d.default: contraction.convolution,
    aten.conv2d.default: contraction.convolution,
    aten.conv3d.default: contraction.convolution,
    aten.conv1d.padding: contraction.convolution,
    aten.conv2d.padding: contraction.convolution,
    aten.conv3d.padding: contraction.convolution,
    aten.linear.default: contraction.linear,
    aten.matmul.default: contraction.matmul,
    aten.bmm.default: contraction.matmul,
    aten.scaled_dot_product_attention.default: contraction.attention,
    # normalisations
    aten.batch_norm.default: normalization.batch_norm,
    aten.layer_norm.default: normalization.layer_norm,
    aten.group_norm.default: normalization.group_norm,
    # windows over space
    aten.max_pool1d.default: window.pool,
    aten.max_pool2d.default: window.pool,
    aten.max_pool3d.default: window.pool,
    aten.avg_pool1d.default: window.pool,
    aten.avg_pool2d.default: window.pool,
    aten.avg_pool3d.default: window.pool,
    aten.adaptive_avg_pool1d.default: window.pool,
    aten.adaptive_avg_pool2d.default: window.pool,
    aten.adaptive_avg_pool3d.default: window.pool,
    aten.adaptive_max_pool2d.default: window.pool_with_indices,
    # shape
    aten.reshape.default: shaping.reshape,
    aten.flatten.using_ints: shaping.reshape,
    aten.unflatten.int: shaping.reshape,
    aten.squeeze.dim: shaping.reshape,
    aten.squeeze.dims: shaping.reshape,
    aten.squeeze.default: shaping.reshape,
    aten.unsqueeze.default: shaping.reshape,
    aten.permute.default: shaping.permute,
    aten.transpose.int: shaping.transpose,
    aten.t.default: shaping.transpose,
    aten.expand.default: shaping.expand,
    aten.cat.default: shaping.cat,
    aten.split_with_sizes.default: shaping.split_apart,
    aten.split.sizes: shaping.split_apart,
    aten.unbind.int: shaping.unbind,
    aten.select.int: shaping.select,
    aten.slice.Tensor: shaping.narrow,
    aten.pad.default: shaping.pad,
    aten.constant_pad_nd.default: shaping.pad,
    operator.getitem: shaping.getitem,
}
"""Operator to rule. Pointwise operators need no entry; anything else missing here pins."""


def rule_of(target: Any) -> Rule | None:
    """The rule of an operator, or None if there is none."""
    return RULES.get(target) or (elementwise.pointwise if is_pointwise(target) else None)
