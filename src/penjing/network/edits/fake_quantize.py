"""Fake quantization: edits that make a network round its weights and activations.

The quantized network keeps its real weights and its scales as parameters. A `fake_quantize` follows
every weight and activation that is quantized. Training such a network is quantization-aware
training. Each runtime turns it into integers in its own way
(`penjing.network.lowering.integers`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from penjing.arith.fake_quantize import FAKE_QUANTIZE
from penjing.arith.quantizer import COARSER
from penjing.network.graph.arguments import argument, read_by, set_argument
from penjing.network.graph.layers import Layer, layers_of
from penjing.network.graph.network import Network
from penjing.network.graph.qparams import qparams_of, scale_nodes
from penjing.network.graph.surgery import divert, insert_after, insert_before, replace
from penjing.network.graph.tensors import add_bias, set_parameter

INT32 = 2**31 - 1
MOST_OF_BIAS = 2**30  # the other half of int32 is left for the sum of the products


def unrounded(network: Network) -> Network:
    """A copy in which nothing is rounded, and whose nodes keep their names."""
    new = copy.deepcopy(network)
    for node in list(new.calls()):
        if node.target is FAKE_QUANTIZE:
            replace(node, read_by(node))
    new.compile_graph()
    return new


def fake_quantize(
    network: Network,
    activations: Mapping[str, Mapping[str, Any]],
    weights: Mapping[str, Mapping[str, Any]],
) -> None:
    """Quantize the named activations, and the weights of the named layers, in place.

    Args:
        network: the network.
        activations: by name of a node, `{"scale", "zero_point", "low", "high", "root"}`. All
            readers get the rounded value. Activations with the same root, the name of a node,
            share one scale.
        weights: by name of a layer's node, `{"scales", "low", "high"}`. The scales are a list with
            one scale per output channel, or with one list per output channel that has a scale for
            each group.
    """
    nodes = {node.name: node for node in network.graph.nodes}
    for name, qparams in activations.items():
        scale = f"{qparams['root']}_scale"
        if name == qparams["root"]:
            set_parameter(network, scale, torch.tensor(float(qparams["scale"])))
        divert(nodes[name], _round(nodes[name], scale, int(qparams["zero_point"]), qparams))
    for name, qparams in weights.items():
        layer = Layer(nodes[name])
        scales = torch.tensor(qparams["scales"], dtype=torch.float32)
        scale = f"{layer.weight_name}_scale"
        set_parameter(network, scale, _with_room_for_bias(network, layer, scales))
        set_argument(layer.node, "weight", _round(layer.weight, scale, 0, qparams))
    for node in layers_of(network):
        _round_bias(Layer(node))


def give_bias(network: Network, layers: Sequence[str]) -> None:
    """Give layers a bias of zero, in place; it is rounded like the biases of other layers."""
    for node in network.calls():
        if node.name not in layers:
            continue
        layer = Layer(node)
        qparams = qparams_of(layer.weight)
        name = str(qparams.source.target) if qparams else layer.weight_name
        zeros = torch.zeros(len(network.tensor(name)), dtype=network.tensor(name).dtype)
        add_bias(network, node, name, zeros)
        _round_bias(layer)


def _stored_bias(layer: Layer) -> fx.Node | None:
    """The layer's bias, if it is a tensor that isn't computed; None otherwise."""
    return layer.bias if layer.bias is not None and layer.bias.op == "get_attr" else None


def _with_room_for_bias(network: Network, layer: Layer, scales: Tensor) -> Tensor:
    """The scales of a weight, enlarged where the layer's bias wouldn't fit into int32.

    That happens if a channel's weights are almost zero, for example because the channel is masked.
    If all channels share one scale, they still do afterwards.
    """
    data, bias = qparams_of(layer.data), _stored_bias(layer)
    if data is None or bias is None or scales.dim() > 1:
        return scales
    room = MOST_OF_BIAS * (COARSER if data.is_wide else 1)
    values = network.tensor(str(bias.target)).detach().abs().cpu()
    least = values / (network.tensor(data.scale).detach().cpu() * room)
    if bool((scales == scales[0]).all()):
        least = least.amax().expand_as(scales)
    return torch.where(scales.abs() < least, least, scales)


def _round_bias(layer: Layer) -> None:
    """Round the bias to the scale of the layer's sums, if the layer's input is quantized too.

    With few bits that scale is coarse, so training and evaluation have to take it into account.
    With 16 it is finer than float32, and the bias has more than 32 bits.
    """
    data, scales, bias = qparams_of(layer.data), scale_nodes(layer.weight), _stored_bias(layer)
    if data is None or data.is_wide or len(scales) != 1 or bias is None:
        return
    product = torch.ops.aten.mul.Tensor
    scale = insert_before(layer.node, product, argument(data.node, "scale"), *scales)
    new = insert_before(layer.node, FAKE_QUANTIZE, bias, scale, 0, -INT32, INT32)
    set_argument(layer.node, "bias", new)


def _round(source: fx.Node, scale: str, zero: int, ends: Mapping[str, Any]) -> fx.Node:
    step = insert_after(source, scale)
    low, high = int(ends["low"]), int(ends["high"])
    return insert_after(step, FAKE_QUANTIZE, source, step, zero, low, high)
