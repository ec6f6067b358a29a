"""A network that rounds its values and weights to grids of integers, and can still be trained.

The quantized network keeps its real weights and its scales as parameters, with a `fake_quantize`
behind every weight and value that has a grid. So training it is quantization-aware training, and
each runtime makes from it the integers in its own way (`penjing.network.integers`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from penjing.arith.binary import BINARIZE
from penjing.arith.fake_quantize import FAKE_QUANTIZE
from penjing.arith.ternary import TERNARIZE
from penjing.network.layers import LAYERS
from penjing.network.network import Network
from penjing.network.tensors import add_bias, set_tensor

INT32 = 2**31 - 1
MOST_OF_BIAS = 2**30  # the other half is for the sum of the products


@dataclass(frozen=True)
class Grid:
    """Where a value is rounded: its node and the arguments of that.

    Attributes:
        node: the `fake_quantize`.
        source: what it rounds.
        scale: the name of its scale.
        zero_point, low, high: integers.
    """

    node: fx.Node
    source: fx.Node
    scale: str
    zero_point: int
    low: int
    high: int

    @property
    def integers(self) -> tuple[int, int, int]:
        """The zero point, the smallest and the largest integer."""
        return self.zero_point, self.low, self.high

    @property
    def bits(self) -> int:
        """How many bits it takes to tell its integers apart."""
        return (self.high - self.low).bit_length()


def grid_of(node: Any) -> Grid | None:
    """The grid of a value's or a weight's `fake_quantize`; None of any other node."""
    if not isinstance(node, fx.Node) or node.target is not FAKE_QUANTIZE:
        return None
    source, scale = (cast(fx.Node, one) for one in node.args[:2])
    if scale.op != "get_attr":
        return None  # a bias
    zero_point, low, high = cast(tuple[int, int, int], node.args[2:])
    return Grid(node, source, str(scale.target), zero_point, low, high)


def grids(network: Network) -> Iterator[Grid]:
    """Every grid, of weights and values, in order."""
    return (found for node in network.calls() if (found := grid_of(node)) is not None)


def weight_grids(network: Network) -> dict[fx.Node, Grid]:
    """Of each layer whose weight is rounded, in order, the weight's grid."""
    found = {node: grid_of(node.args[1]) for node in network.calls() if node.target in LAYERS}
    return {node: grid for node, grid in found.items() if grid and grid.source.op == "get_attr"}


def value_grids(network: Network) -> list[Grid]:
    """The grids of what is computed, so of all but weights, in order."""
    of_weights = {grid.node for grid in weight_grids(network).values()}
    return [grid for grid in grids(network) if grid.node not in of_weights]


def own_bias(layer: fx.Node) -> fx.Node | None:
    """The layer's own bias; None if it has none, or one that is computed or shared."""
    bias = layer.args[2] if len(layer.args) > 2 else None
    if isinstance(bias, fx.Node) and bias.target is FAKE_QUANTIZE:
        bias = bias.args[0]
    own = isinstance(bias, fx.Node) and bias.op == "get_attr" and len(bias.users) == 1
    return cast(fx.Node, bias) if own else None


def unrounded(network: Network) -> Network:
    """A copy in which nothing is rounded; its nodes keep their names."""
    new = copy.deepcopy(network)
    for node in list(new.calls()):
        if node.target is FAKE_QUANTIZE:
            node.replace_all_uses_with(cast(fx.Node, node.args[0]))
            new.graph.erase_node(node)
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
    for name, one in activations.items():
        scale = f"{one['root']}_scale"
        if name == one["root"]:
            _put(network, scale, torch.tensor(float(one["scale"])))
        new = _round(network, nodes[name], scale, int(one["zero_point"]), one)
        nodes[name].replace_all_uses_with(new, delete_user_cb=lambda user, new=new: user is not new)
    for name, one in weights.items():
        weight = nodes[name].args[1]
        assert isinstance(weight, fx.Node)
        scales = torch.tensor(one["scales"], dtype=torch.float32)
        _put(network, f"{weight.target}_scale", _with_room_for_bias(network, nodes[name], scales))
        nodes[name].update_arg(1, _round(network, weight, f"{weight.target}_scale", 0, one))
    for layer in network.calls():
        if layer.target in LAYERS:
            _round_bias(layer)


def give_bias(network: Network, layers: Sequence[str]) -> None:
    """Give the named layers, by node, a bias of zero, rounded where the others are, in place."""
    for node in network.calls():
        if node.name not in layers:
            continue
        weight, source = node.args[1], grid_of(node.args[1])
        name = str((source.source if source else cast(fx.Node, weight)).target)
        zeros = torch.zeros(len(network.tensor(name)), dtype=network.tensor(name).dtype)
        add_bias(network, node, name, zeros)
        _round_bias(node)


def _stored_bias(layer: fx.Node) -> fx.Node | None:
    """What the layer reads as its bias, if that is stored as it is; None otherwise."""
    bias = layer.args[2] if len(layer.args) > 2 else None
    return bias if isinstance(bias, fx.Node) and bias.op == "get_attr" else None


def _with_room_for_bias(network: Network, layer: fx.Node, scales: Tensor) -> Tensor:
    """A weight's scales, enlarged where the layer's bias would leave the integers of its sums.

    That is so where a channel's weights are next to nothing, as those of a channel that is cut off
    by a mask. Where all channels share one scale, they go on doing so.
    """
    data, bias = grid_of(layer.args[0]), _stored_bias(layer)
    if data is None or bias is None or scales.dim() > 1:
        return scales
    values = network.tensor(str(bias.target)).detach().abs().cpu()
    least = values / (network.tensor(data.scale).detach().cpu() * MOST_OF_BIAS)
    if bool((scales == scales[0]).all()):
        least = least.amax().expand_as(scales)
    return torch.where(scales.abs() < least, least, scales)


def _round_bias(layer: fx.Node) -> None:
    """Put the bias on the grid of the layer's sums, where its input has a grid too.

    With few bits that grid is coarse, so what is trained or judged must know of it.
    """
    data, weight = grid_of(layer.args[0]), _weight_scale(layer.args[1])
    bias = _stored_bias(layer)
    if data is None or weight is None or bias is None:
        return
    with layer.graph.inserting_before(layer):
        scale = layer.graph.call_function(torch.ops.aten.mul.Tensor, (data.node.args[1], weight))
        new = layer.graph.call_function(FAKE_QUANTIZE, (bias, scale, 0, -INT32, INT32))
    scale.meta, new.meta = dict(layer.meta), dict(layer.meta)
    layer.update_arg(2, new)


def _weight_scale(weight: Any) -> fx.Node | None:
    """What the integers of a rounded or ternary weight are multiplied by, if it is one scale."""
    if grid_of(weight) is not None or scales_of(weight):
        first, last = weight.args[1], weight.args[2 if weight.target is TERNARIZE else 1]
        return first if first is last else None
    return None


def scales_of(rounded: Any) -> list[str]:
    """The names of the scales that a value is multiplied by after rounding, none twice."""
    if not isinstance(rounded, fx.Node):
        return []
    places = {FAKE_QUANTIZE: (1,), TERNARIZE: (1, 2), BINARIZE: (1,)}.get(rounded.target, ())  # type: ignore[call-overload]
    nodes = dict.fromkeys(rounded.args[place] for place in places)
    return [str(one.target) for one in nodes if isinstance(one, fx.Node) and one.op == "get_attr"]


def scale_names(network: Network) -> set[str]:
    """The names of all scales that weights and values are multiplied by after rounding."""
    return {name for node in network.calls() for name in scales_of(node)}


def _put(network: Network, name: str, scale: Tensor) -> None:
    set_tensor(network, name, nn.Parameter(scale.to(network.device)))


def _round(
    network: Network, source: fx.Node, scale: str, zero: int, ends: Mapping[str, Any]
) -> fx.Node:
    with network.graph.inserting_after(source):
        attribute = network.graph.get_attr(scale)
    with network.graph.inserting_after(attribute):
        new = network.graph.call_function(
            FAKE_QUANTIZE, (source, attribute, zero, int(ends["low"]), int(ends["high"]))
        )
    attribute.meta, new.meta = dict(source.meta), dict(source.meta)
    return new
