"""Rewrite a network so that TOSA, through which ExecuTorch reaches Arm's NPUs, accepts all of it.

TOSA's operators compute on integers. Some can change the scale and zero point: layers, sums,
products, and tables of 256 values. All others keep them. If they change at one of those, Arm's
passes silently compute with the wrong scale. The rewriting changes no number.
"""

from __future__ import annotations

import copy

import torch
from torch import fx

from penjing.network import Network
from penjing.network.graph.arguments import read_by
from penjing.network.graph.layers import LAYERS
from penjing.network.graph.surgery import leave_input_alone
from penjing.network.graph.tensors import drop_unused
from penjing.network.lowering.integers import DEQUANTIZE, QUANTIZE, qparams_arguments, round_between
from penjing.runtimes.executorch.rounding import (
    BY_CHANNEL,
    FUSED,
    fuse_clamps,
    qparams_behind,
    separate,
)

aten = torch.ops.aten
CODES = {QUANTIZE, DEQUANTIZE, BY_CHANNEL}
SUMS = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor}
TABLES = {
    aten.sigmoid.default, aten.tanh.default, aten.gelu.default, aten.silu.default,
    aten.hardswish.default, aten.hardsigmoid.default, aten.leaky_relu.default,
}  # fmt: skip
MOVES = FUSED | {
    aten.max_pool2d.default, aten.cat.default, aten.slice.Tensor, aten.pad.default,
    aten.view.default, aten.reshape.default, aten.flatten.using_ints, aten.squeeze.dim,
    aten.unsqueeze.default, aten.permute.default, aten.transpose.int, aten.expand.default,
    aten.select.int,
}  # fmt: skip
"""Operators that only select or clip values, so that rounding may come before or after them."""
KEEPS = MOVES | {aten.avg_pool2d.default}
"""Operators for which TOSA's inputs and outputs must have the same scale and zero point."""


def for_tosa(network: Network) -> Network:
    """A copy that computes the same numbers with operators that TOSA's partitioner accepts.

    Args:
        network: a network with quantize and dequantize nodes where it has integers, and with layers
            in place of averages that change the scale (`penjing.network.lowering.as_convolutions`).
    """
    new = copy.deepcopy(network)
    for node in new.calls():
        leave_input_alone(node)
    _leave_out_dropouts(new)
    fuse_clamps(new)
    for node in reversed(list(new.calls())):  # backwards, so that rounding can move several steps
        if node.target in MOVES:
            _round_before(node)
    separate(new)
    return new


def _leave_out_dropouts(network: Network) -> None:
    """Remove dropouts, in place, and with each a second rounding to the same integers."""
    for node in list(network.calls()):
        if node.target is not aten.dropout.default:
            continue
        source, qparams = read_by(node), qparams_behind(node)
        if source.target is DEQUANTIZE and qparams_arguments(source) == qparams:
            for value in list(next(iter(node.users)).users):
                value.replace_all_uses_with(source)
        node.replace_all_uses_with(source)
    drop_unused(network)


def may_run_on_npu(node: fx.Node) -> bool:
    """Whether the NPU computes the same numbers for an operator as the network does.

    That is so if its inputs and outputs are quantized, and if it is an operator that TOSA rescales
    wherever their scales differ. An activation counts as a part of its layer.
    """
    if node.op != "call_function":
        return False
    inputs, qparams = node.all_input_nodes, qparams_behind(node)
    if node.target in FUSED and any(_is_with_activation(source) for source in inputs):
        return qparams is not None
    if not all(source.target in CODES for source in inputs):
        return False
    if node.target in KEEPS:
        return qparams is not None and all(
            qparams_arguments(source) == qparams for source in inputs
        )
    if node.target in SUMS and (len(node.args) != 2 or node.kwargs or len(inputs) != 2):
        return False
    rescales = node.target in LAYERS | SUMS | TABLES
    return rescales and (qparams is not None or _is_with_activation(node))


def _is_with_activation(node: fx.Node) -> bool:
    """Whether this is a layer whose only reader is an activation."""
    readers = list(node.users)
    return node.target in LAYERS and len(readers) == 1 and readers[0].target in FUSED


def _round_before(node: fx.Node) -> None:
    """Round the inputs of `node` with the quantization parameters of its output, unless they have
    these already."""
    qparams = qparams_behind(node)
    if qparams is None:
        return
    for part in node.all_input_nodes:
        if part.target is DEQUANTIZE:
            is_apart = qparams_arguments(part) != qparams
        else:  # if several nodes read it, each may round differently
            with_layer = node.target in FUSED and part.target in LAYERS
            is_apart = part.op != "get_attr" and len(part.users) == 1 and not with_layer
        if is_apart:
            round_between(part, node, qparams)
