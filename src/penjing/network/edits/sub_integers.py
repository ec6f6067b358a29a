"""Sub-integers: edits that make weights ternary or binary, and activations signs.

The network stays trainable. A layer that reads signs applies its weight scale and its bias behind
the layer. The layer itself then sums -1 and 1, which is exact in float32 in any order. So every
other way to compute these sums, from packed bits (`penjing.network.lowering.packed_bits`) or in a
runtime, gives the same decisions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, fx

from penjing.arith.binary import BINARIZE, SIGN
from penjing.arith.ternary import TERNARIZE, ternary_codes, ternary_scales
from penjing.network.graph.arguments import read_by, set_argument
from penjing.network.graph.layers import Layer, layers_of
from penjing.network.graph.network import Network
from penjing.network.graph.shapes import shapes
from penjing.network.graph.surgery import (
    divert,
    insert_after,
    insert_before,
    leave_input_alone,
    replace,
)
from penjing.network.graph.tensors import set_parameter

aten = torch.ops.aten
SLOPE = 0.25
"""The initial slope of a learned ReLU for negative values."""


def ternarize(network: Network, layers: Sequence[str], scales: str, threshold: float) -> None:
    """Make the weights of layers ternary, in place.

    Args:
        network: the network.
        layers: the names of the layers' nodes.
        scales: `"one"` scale per output channel, or `"two"`, one for each sign. With two, the real
            weight is divided by its largest magnitude, which changes no code, as in TTQ.
        threshold: see `penjing.arith.ternary`.
    """
    for node in _named(network, layers):
        source = Layer(node).weight
        name = str(source.target)
        weight = network.tensor(name)
        codes = ternary_codes(weight, threshold)
        if scales == "one":
            ends = [_parameter(network, source, f"{name}_scale", ternary_scales(weight, codes))] * 2
        else:
            ends = [
                _parameter(network, source, f"{name}_{end}", ternary_scales(weight, codes, sign))
                for end, sign in (("positive", 1), ("negative", -1))
            ]
            with torch.no_grad():
                weight.div_(weight.abs().max().clamp_min(torch.finfo(weight.dtype).tiny))
        set_argument(node, "weight", insert_before(node, TERNARIZE, source, *ends, threshold))


def sign_inputs(
    network: Network,
    layers: Mapping[str, str],
    dropped: Sequence[str],
    learned: bool,
    shortcuts: Sequence[str],
) -> None:
    """Make layers read signs, in place.

    Args:
        network: the network.
        layers: by name of a layer's node, the node whose sign it is to read.
        dropped: the ReLUs to remove, behind which every sign would be 1.
        learned: shift each channel by a learned amount before its sign, and replace each of
            `dropped` by a learned ReLU: prelu(x - a) + b (ReActNet).
        shortcuts: the layers among `layers` around which the value before the sign is added. It is
            added behind a batch norm if that is the layer's only reader (Bi-Real Net).
    """
    sizes = shapes(network)
    nodes = {node.name: node for node in network.graph.nodes}
    replaced: dict[fx.Node, fx.Node] = {}
    for name in dropped:
        clamp = nodes[name]
        new = _learned_relu(network, clamp, sizes[clamp]) if learned else read_by(clamp)
        replace(clamp, new)
        replaced[clamp] = new
    signs: dict[fx.Node, fx.Node] = {}
    for name, read in layers.items():
        layer, source = nodes[name], replaced.get(nodes[read], nodes[read])
        if source not in signs:
            _out_of_place(source)
            signs[source] = _sign(network, source, layer, sizes.get(nodes[read], ()), learned)
        set_argument(layer, "input", signs[source])
        if name in shortcuts:
            _shortcut(layer, source)


def binarize(network: Network, layers: Sequence[str]) -> None:
    """Make the weights of layers binary, in place; `layers` are the names of their nodes.

    The scale of an output channel starts as the mean magnitude of its weights. If the layer reads
    signs, the scale and the bias are applied behind the layer.
    """
    for node in _named(network, layers):
        source = Layer(node).weight
        name = str(source.target)
        start = network.tensor(name).detach().flatten(1).abs().mean(1)
        scale = _parameter(network, source, f"{name}_scale", start)
        outside = Layer(node).data.target is SIGN
        inside = None if outside else scale
        set_argument(node, "weight", insert_before(node, BINARIZE, source, inside))
        if outside:
            _scale_outside(Layer(node), scale)


def _scale_outside(layer: Layer, scale: fx.Node) -> None:
    product = insert_after(layer.node, aten.mul.Tensor, layer.node, scale)
    divert(layer.node, product)
    factors, bias = [(product, scale)], layer.bias
    if bias is not None:
        set_argument(layer.node, "bias", None)
        total = insert_after(product, aten.add.Tensor, product, bias)
        divert(product, total)
        factors.append((total, bias))
    for node, factor in factors if layer.dimensions else ():
        shape = [-1, *[1] * layer.dimensions]
        set_argument(node, "other", insert_before(node, aten.reshape.default, factor, shape))


def _sign(
    network: Network, source: fx.Node, layer: fx.Node, shape: tuple[int, ...], learned: bool
) -> fx.Node:
    value = insert_after(source, SIGN, source, like=layer)
    if learned:
        spatial = Layer(layer).dimensions
        channels = shape[1] if spatial else shape[-1]
        value.args = (_shifted(network, value, source, "shift", channels, spatial),)
    return value


def _learned_relu(network: Network, clamp: fx.Node, shape: tuple[int, ...]) -> fx.Node:
    """prelu(x - a) + b, with a, b and the slope learned for each channel."""
    spatial = max(0, len(shape) - 2)
    layers = [Layer(node) for node in layers_of(network)]
    if len(shape) == 3 and not any(layer.dimensions == 1 for layer in layers):
        spatial = 0  # tokens: channels come last
    channels = shape[1] if spatial else shape[-1]
    bent = _shifted(network, clamp, read_by(clamp), "bend", channels, spatial)
    above = insert_before(clamp, aten.relu.default, bent)
    below = insert_before(clamp, aten.sub.Tensor, bent, above)
    slope = _channelwise(network, clamp, "slope", torch.full((channels,), SLOPE), spatial)
    below = insert_before(clamp, aten.mul.Tensor, below, slope)
    bent = insert_before(clamp, aten.add.Tensor, above, below)
    rise = _channelwise(network, clamp, "rise", torch.zeros(channels), spatial)
    return insert_before(clamp, aten.add.Tensor, bent, rise)


def _shifted(
    network: Network, before: fx.Node, value: fx.Node, what: str, channels: int, spatial: int
) -> fx.Node:
    shift = _channelwise(network, before, what, torch.zeros(channels), spatial)
    return insert_before(before, aten.sub.Tensor, value, shift)


def _channelwise(
    network: Network, before: fx.Node, what: str, start: Tensor, spatial: int
) -> fx.Node:
    """A new parameter with one number per channel, reshaped so that it broadcasts."""
    name = f"{before.name}_{what}"
    set_parameter(network, name, start)
    node = insert_before(before, name)
    shape = [-1, *[1] * spatial]
    return insert_before(before, aten.reshape.default, node, shape) if spatial else node


def _out_of_place(source: fx.Node) -> None:
    """Prevent readers from overwriting a value whose sign is read."""
    for user in source.users:
        if user.op == "call_function" and user.all_input_nodes[0] is source:
            leave_input_alone(user)


def _shortcut(layer: fx.Node, source: fx.Node) -> None:
    end = layer
    users = list(layer.users)
    if len(users) == 1 and users[0].target is aten.batch_norm.default:
        end = users[0]
    divert(end, insert_after(end, aten.add.Tensor, end, source))


def _named(network: Network, names: Sequence[str]) -> list[fx.Node]:
    wanted = set(names)
    return [node for node in network.calls() if node.name in wanted]


def _parameter(network: Network, near: fx.Node, name: str, value: Tensor) -> fx.Node:
    """A new parameter that is read directly behind the node `near`."""
    set_parameter(network, name, value)
    return insert_after(near, name)
