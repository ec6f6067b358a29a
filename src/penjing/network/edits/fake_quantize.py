"""A network that rounds its values and weights to grids of integers, and can still be trained.

The quantized network keeps its real weights and its scales as parameters, with a `fake_quantize`
behind every weight and value that has a grid. So training it is quantization-aware training, and
each runtime makes from it the integers in its own way (`penjing.network.lowering.integers`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from penjing.arith.fake_quantize import FAKE_QUANTIZE
from penjing.network.graph.arguments import argument, read_by, set_argument
from penjing.network.graph.layers import Layer, layers_of
from penjing.network.graph.network import Network
from penjing.network.graph.qparams import qparams_of, scale_nodes
from penjing.network.graph.surgery import divert, insert_after, insert_before, replace
from penjing.network.graph.tensors import add_bias, set_parameter

INT32 = 2**31 - 1
MOST_OF_BIAS = 2**30  # the other half is for the sum of the products


def unrounded(network: Network) -> Network:
    """A copy in which nothing is rounded; its nodes keep their names."""
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
    """Round the named values, and the weights of the named layers, in place.

    Args:
        activations: name of a node to `{"scale", "zero_point", "low", "high", "root"}`; all its
            users read the rounded value. Values of one root, a node's name, share one scale.
        weights: name of a layer's node to `{"scales", "low", "high"}`; scales are a list with one
            for each output channel, or one list for each with the scales of its groups.
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
    """Give the named layers, by node, a bias of zero, rounded where the others are, in place."""
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
    """What the layer reads as its bias, if that is stored as it is; None otherwise."""
    return layer.bias if layer.bias is not None and layer.bias.op == "get_attr" else None


def _with_room_for_bias(network: Network, layer: Layer, scales: Tensor) -> Tensor:
    """A weight's scales, enlarged where the layer's bias would leave the integers of its sums.

    That is so where a channel's weights are next to nothing, as those of a channel that is cut off
    by a mask. Where all channels share one scale, they go on doing so.
    """
    data, bias = qparams_of(layer.data), _stored_bias(layer)
    if data is None or bias is None or scales.dim() > 1:
        return scales
    values = network.tensor(str(bias.target)).detach().abs().cpu()
    least = values / (network.tensor(data.scale).detach().cpu() * MOST_OF_BIAS)
    if bool((scales == scales[0]).all()):
        least = least.amax().expand_as(scales)
    return torch.where(scales.abs() < least, least, scales)


def _round_bias(layer: Layer) -> None:
    """Put the bias on the grid of the layer's sums, where its input has a grid too.

    With few bits that grid is coarse, so what is trained or judged must know of it.
    """
    data, scales, bias = qparams_of(layer.data), scale_nodes(layer.weight), _stored_bias(layer)
    if data is None or len(scales) != 1 or bias is None:
        return
    product = torch.ops.aten.mul.Tensor
    scale = insert_before(layer.node, product, argument(data.node, "scale"), *scales)
    new = insert_before(layer.node, FAKE_QUANTIZE, bias, scale, 0, -INT32, INT32)
    set_argument(layer.node, "bias", new)


def _round(source: fx.Node, scale: str, zero: int, ends: Mapping[str, Any]) -> fx.Node:
    step = insert_after(source, scale)
    low, high = int(ends["low"]), int(ends["high"])
    return insert_after(step, FAKE_QUANTIZE, source, step, zero, low, high)
