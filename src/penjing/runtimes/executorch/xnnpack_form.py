"""Rewrite a network so that XNNPACK, ExecuTorch's delegate for CPUs, accepts all of it.

XNNPACK wants float biases, positive scales, concatenations whose inputs and output share their
quantization parameters, and means over height and width that keep these dimensions. The rewriting
changes no number.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, fx

from penjing.network import Network
from penjing.network.graph.arguments import argument, read_by, set_argument
from penjing.network.graph.layers import LAYERS, Layer
from penjing.network.graph.shapes import shapes
from penjing.network.graph.surgery import divert, erase, insert_after
from penjing.network.graph.tensors import insert_tensor, set_tensor
from penjing.network.lowering.integers import DEQUANTIZE, QUANTIZE, qparams_arguments, round_between
from penjing.runtimes.executorch.rounding import (
    BY_CHANNEL,
    FUSED,
    fuse_clamps,
    qparams_behind,
    separate,
)

aten = torch.ops.aten
VOLUMES = {aten.conv3d.default, aten.conv3d.padding}
NAME = "_xnnpack"
"""The prefix of the names of tensors that are added here."""


def for_xnnpack(network: Network) -> Network:
    """A copy that computes the same numbers with operators that XNNPACK accepts.

    Args:
        network: a network with quantize and dequantize nodes where it has integers.
    """
    new = copy.deepcopy(network)
    known = {node.name: shape for node, shape in shapes(new).items()}
    fuse_clamps(new)
    for node in list(new.calls()):
        if node.target is aten.mean.dim:
            _keep_sizes(node, known[read_by(node).name], known[node.name])
    for node in list(new.calls()):
        if node.target in LAYERS:
            _write_real(new, node, "bias")
            if computes_in_integers(node):
                _positive_scales(new, Layer(node).weight)
            else:
                _write_real(new, node, "weight")
        elif node.target is aten.cat.default:
            _share_qparams(node)
    separate(new)
    return new


def _keep_sizes(node: fx.Node, before: tuple[int, ...], after: tuple[int, ...]) -> None:
    """Let a mean of (N, C, H, W) over H and W keep both as ones, and remove them by a reshape."""
    axes = {axis % len(before) for axis in argument(node, "dim")}
    if len(before) != 4 or axes != {2, 3} or len(after) == 4:
        return
    set_argument(node, "dim", [2, 3])
    set_argument(node, "keepdim", True)
    divert(node, insert_after(node, aten.reshape.default, node, [-1, before[1]]))


def computes_in_integers(layer: fx.Node) -> bool:
    """Whether XNNPACK runs the layer on integers: its input, weight and output are quantized.

    XNNPACK has integer convolutions only over one and two dimensions.
    """
    view, readers = Layer(layer), list(layer.users)
    if len(readers) == 1 and readers[0].target in FUSED:
        readers = list(readers[0].users)
    rounded = [reader.target is QUANTIZE for reader in readers] == [True]
    fits = layer.target not in VOLUMES and view.data.target is DEQUANTIZE
    return fits and rounded and view.weight.target is BY_CHANNEL


def _write_real(network: Network, layer: fx.Node, what: str) -> None:
    """Replace a layer's integer weight or bias by the real numbers that it stands for.

    XNNPACK turns a bias into the same integers again.
    """
    value = argument(layer, what)
    if value is None or value.op != "call_function" or not _is_constant(value):
        return
    name = f"{NAME}_{layer.name}_{what}"
    set_argument(layer, what, insert_tensor(network, layer, name, _computed(network, value)))
    erase(value)


def _positive_scales(network: Network, weight: fx.Node) -> None:
    """Make all scales positive, and flip the signs of the integers whose scale was negative."""
    codes, scales = (str(argument(weight, name).target) for name in ("input", "scales"))
    signs = network.tensor(scales).sign().to(torch.int8)
    shape = (-1, *[1] * (network.tensor(codes).dim() - 1))
    set_tensor(network, codes, network.tensor(codes) * signs.view(shape))
    set_tensor(network, scales, network.tensor(scales).abs())


def _share_qparams(node: fx.Node) -> None:
    """Round the inputs of a concatenation with the quantization parameters of its output."""
    qparams = qparams_behind(node)
    if qparams is None:
        return
    for part in node.all_input_nodes:
        if part.target is DEQUANTIZE and qparams_arguments(part) != qparams:
            round_between(part, node, qparams)


def _is_constant(node: fx.Node) -> bool:
    return node.op == "get_attr" or (
        node.op == "call_function" and all(_is_constant(source) for source in node.all_input_nodes)
    )


def _computed(network: Network, node: fx.Node) -> Tensor:
    if node.op == "get_attr":
        return network.tensor(str(node.target)).detach()
    args = fx.node.map_arg(node.args, lambda source: _computed(network, source))
    return cast(Tensor, cast(Any, node.target)(*cast(tuple[Any, ...], args), **node.kwargs))
