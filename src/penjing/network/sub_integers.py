"""Edits that give a network ternary or binary weights, and signs for values; it stays trainable.

A layer between signs keeps its weight's scale and its bias outside, behind the layer: the layer
then sums -1 and 1, which float32 does exactly in any order, and whatever computes these sums from
bits (`penjing.network.packed_bits`) or in a runtime comes to the same decisions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, fx, nn

from penjing.arith.binary import BINARIZE, SIGN
from penjing.arith.ternary import TERNARIZE, ternary_codes, ternary_scales
from penjing.network.layers import CONVOLUTIONS
from penjing.network.network import Network
from penjing.network.shapes import shapes
from penjing.network.tensors import set_tensor

aten = torch.ops.aten
SLOPE = 0.25
"""Of a learned ReLU below its bend, at the start."""


def ternarize(network: Network, layers: Sequence[str], scales: str, threshold: float) -> None:
    """Make the weights of the layers, by their nodes' names, ternary, in place.

    Args:
        scales: `"one"` to each output channel, or `"two"`, one for each sign. With two the real
            weight is divided by its largest magnitude, which changes no code, as in TTQ.
        threshold: see `penjing.arith.ternary`.
    """
    for node in _named(network, layers):
        source = cast(fx.Node, node.args[1])
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
        node.update_arg(1, _before(node, TERNARIZE, source, *ends, threshold))


def sign_inputs(
    network: Network,
    layers: Mapping[str, str],
    dropped: Sequence[str],
    learned: bool,
    shortcuts: Sequence[str],
) -> None:
    """Let the layers read signs, in place.

    Args:
        layers: name of a layer's node to the node whose sign it shall read.
        dropped: nodes of ReLUs to take out, behind which every sign would be 1.
        learned: move each channel by a learned shift before its sign, and put a learned ReLU in
            place of each of `dropped`: prelu(x - a) + b (ReActNet).
        shortcuts: layers (among `layers`) around which the value before the sign is added, behind
            the batch norm if that alone reads the layer (Bi-Real).
    """
    sizes = shapes(network)
    nodes = {node.name: node for node in network.graph.nodes}
    found: dict[fx.Node, fx.Node] = {}
    for name in dropped:
        clamp = nodes[name]
        value = cast(fx.Node, clamp.args[0])
        new = _learned_relu(network, clamp, sizes[clamp]) if learned else value
        clamp.replace_all_uses_with(new)
        network.graph.erase_node(clamp)
        found[clamp] = new
    signs: dict[fx.Node, fx.Node] = {}
    for name, read in layers.items():
        layer, source = nodes[name], found.get(nodes[read], nodes[read])
        if source not in signs:
            _out_of_place(source)
            signs[source] = _sign(network, source, layer, sizes.get(nodes[read], ()), learned)
        layer.update_arg(0, signs[source])
        if name in shortcuts:
            _shortcut(layer, source)


def binarize(network: Network, layers: Sequence[str]) -> None:
    """Make the weights of the layers, by their nodes' names, binary, in place.

    The scale starts as the mean magnitude of an output channel. Where the layer reads signs, it
    and the bias stand behind the layer.
    """
    for node in _named(network, layers):
        source = cast(fx.Node, node.args[1])
        name = str(source.target)
        start = network.tensor(name).detach().flatten(1).abs().mean(1)
        scale = _parameter(network, source, f"{name}_scale", start)
        data = node.args[0]
        if not isinstance(data, fx.Node) or data.target is not SIGN:
            node.update_arg(1, _before(node, BINARIZE, source, scale))
            continue
        node.update_arg(1, _before(node, BINARIZE, source, None))
        _scale_outside(node, scale)


def _scale_outside(layer: fx.Node, scale: fx.Node) -> None:
    bias = layer.args[2] if len(layer.args) > 2 else None
    users = list(layer.users)
    shape = [-1, *[1] * _spatial(layer)]
    with layer.graph.inserting_after(layer):
        last = layer.graph.call_function(aten.mul.Tensor, (layer, scale))
    last.meta = dict(layer.meta)
    factors = [(last, scale)]
    if bias is not None:
        layer.update_arg(2, None)
        with layer.graph.inserting_after(last):
            new = layer.graph.call_function(aten.add.Tensor, (last, cast(fx.Node, bias)))
        new.meta, last = dict(layer.meta), new
        factors.append((new, cast(fx.Node, bias)))
    for user in users:
        user.replace_input_with(layer, last)
    if len(shape) == 1:
        return
    for node, factor in factors:
        node.update_arg(1, _before(node, aten.reshape.default, factor, shape))


def _spatial(layer: fx.Node) -> int:
    """How many dimensions follow the channels."""
    kind = str(layer.target)
    return int(kind[kind.index("conv") + 4]) if layer.target in CONVOLUTIONS else 0


def _sign(
    network: Network, source: fx.Node, layer: fx.Node, shape: tuple[int, ...], learned: bool
) -> fx.Node:
    with network.graph.inserting_after(source):
        value = network.graph.call_function(SIGN, (source,))
    value.meta = dict(layer.meta)
    if learned:
        channels = shape[1] if _spatial(layer) else shape[-1]
        value.update_arg(0, _shifted(network, value, source, "shift", channels, _spatial(layer)))
    return value


def _learned_relu(network: Network, clamp: fx.Node, shape: tuple[int, ...]) -> fx.Node:
    """prelu(x - a) + b with a, b and the slope for each channel."""
    spatial = max(0, len(shape) - 2)
    if len(shape) == 3 and not any(_spatial(node) == 1 for node in network.calls()):
        spatial = 0  # tokens: channels come last
    channels = shape[1] if spatial else shape[-1]
    bent = _shifted(network, clamp, cast(fx.Node, clamp.args[0]), "bend", channels, spatial)
    above = _before(clamp, aten.relu.default, bent)
    below = _before(clamp, aten.sub.Tensor, bent, above)
    slope = _channelwise(network, clamp, "slope", torch.full((channels,), SLOPE), spatial)
    bent = _before(clamp, aten.add.Tensor, above, _before(clamp, aten.mul.Tensor, below, slope))
    rise = _channelwise(network, clamp, "rise", torch.zeros(channels), spatial)
    return _before(clamp, aten.add.Tensor, bent, rise)


def _shifted(
    network: Network, before: fx.Node, value: fx.Node, what: str, channels: int, spatial: int
) -> fx.Node:
    shift = _channelwise(network, before, what, torch.zeros(channels), spatial)
    return _before(before, aten.sub.Tensor, value, shift)


def _channelwise(
    network: Network, before: fx.Node, what: str, start: Tensor, spatial: int
) -> fx.Node:
    """A new parameter with one number for each channel, in a shape that broadcasts."""
    name = f"{before.name}_{what}"
    set_tensor(network, name, nn.Parameter(start.to(network.device)))
    with network.graph.inserting_before(before):
        node = network.graph.get_attr(name)
    node.meta = dict(before.meta)
    return _before(before, aten.reshape.default, node, [-1, *[1] * spatial]) if spatial else node


def _out_of_place(source: fx.Node) -> None:
    """Let nothing overwrite a value whose sign is read."""
    for user in source.users:
        name, _, overload = str(user.target).removeprefix("aten.").partition(".")
        if user.op == "call_function" and name.endswith("_") and user.args[0] is source:
            user.target = getattr(getattr(aten, name[:-1]), overload)


def _shortcut(layer: fx.Node, source: fx.Node) -> None:
    end = layer
    users = list(layer.users)
    if len(users) == 1 and users[0].target is aten.batch_norm.default:
        end = users[0]
    users = list(end.users)
    with layer.graph.inserting_after(end):
        total = layer.graph.call_function(aten.add.Tensor, (end, source))
    total.meta = dict(end.meta)
    for user in users:
        user.replace_input_with(end, total)


def _named(network: Network, names: Sequence[str]) -> list[fx.Node]:
    wanted = set(names)
    return [node for node in network.calls() if node.name in wanted]


def _parameter(network: Network, near: fx.Node, name: str, value: Tensor) -> fx.Node:
    """A new parameter, read right after the node `near`."""
    set_tensor(network, name, nn.Parameter(value.to(network.device)))
    with network.graph.inserting_after(near):
        node = network.graph.get_attr(name)
    node.meta = dict(near.meta)
    return node


def _before(node: fx.Node, operator: torch._ops.OpOverload, *args: object) -> fx.Node:
    with node.graph.inserting_before(node):
        new = node.graph.call_function(operator, args)  # type: ignore[arg-type]
    new.meta = dict(node.meta)
    return new
