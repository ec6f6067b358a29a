"""The form in which XNNPACK, ExecuTorch's delegate for processors, takes all of a network.

Biases have to be real there, and scales positive. It takes no strided slice and no quantized
padding of channels, and a mean over rows and columns only if these stay as ones. No number changes
here.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, fx

from penjing.network import Network
from penjing.network.layers import LAYERS
from penjing.network.shapes import shapes
from penjing.network.tensors import drop_unused, set_tensor
from penjing.runtimes.executorch_rounding import (
    BY_CHANNEL,
    DEQUANTIZE,
    FUSED,
    QUANTIZE,
    for_each_reader,
    fuse_clamps,
    on_one_grid,
)

aten = torch.ops.aten
Shapes = Mapping[str, Any]
"""By the name of a node."""
VOLUMES = {aten.conv3d.default, aten.conv3d.padding}
NAME = "_xnnpack"
"""How the names of tensors that are made here begin."""


def for_xnnpack(network: Network) -> Network:
    """A copy that computes the same numbers in operators that XNNPACK takes.

    Args:
        network: with quantize and dequantize nodes where it has integers.
    """
    new = copy.deepcopy(network)
    known = {node.name: shape for node, shape in shapes(new).items()}
    fuse_clamps(new)
    for node in list(new.calls()):
        if node.target is aten.mean.dim:
            _keep_sizes(node, known[_source(node).name], known[node.name])
    runs: list[list[fx.Node]] = []
    for node in new.calls():
        if not any(node in run for run in runs):
            runs.append(_subsampling(node, known))
    for run in filter(None, runs):
        _convolve(new, run, known)
    for node in list(new.calls()):
        if node.target in LAYERS:
            _write_real(new, node, 2)
            if computes_in_integers(node):
                _positive_scales(new, cast(fx.Node, node.args[1]))
            else:
                _write_real(new, node, 1)
        elif node.target is aten.cat.default:
            on_one_grid(node)
    for node in list(new.calls()):
        if node.target is DEQUANTIZE:
            for_each_reader(node)
    drop_unused(new)
    new.compile_graph()
    return new


def _source(node: fx.Node) -> fx.Node:
    return cast(fx.Node, node.args[0])


def _keep_sizes(node: fx.Node, before: tuple[int, ...], after: tuple[int, ...]) -> None:
    """A mean of N x C x H x W over H and W keeps them as ones; a reshape takes them away."""
    axes = {one % len(before) for one in cast(list[int], node.args[1])}
    if len(before) != 4 or axes != {2, 3} or len(after) == 4:
        return
    node.args = (node.args[0], [2, 3], True)
    with node.graph.inserting_after(node):
        flat = node.graph.call_function(aten.reshape.default, (node, [-1, before[1]]))
    flat.meta = dict(node.meta)
    node.replace_all_uses_with(flat, delete_user_cb=lambda user: user is not flat)


def _subsampling(node: fx.Node, known: Shapes) -> list[fx.Node]:
    """Slices with a step in a row, and a padding of channels behind them, that begin at this node.

    On integers all are on one grid, with a quantize behind the last.
    """
    if _step(node, known) is None:
        return []
    nodes, grid = [node], _grid(_source(node))
    while True:
        readers, behind = list(nodes[-1].users), None
        if len(readers) == 1 and readers[0].target is QUANTIZE:
            behind = readers[0]
            readers = [one for value in behind.users for one in value.users]
        same = (behind.args[1:] if behind else None) == grid
        grows = same and len(readers) == 1 and (_step(readers[0], known) or _padding(readers[0]))
        if not grows or _padding(nodes[-1]):
            return nodes if same or grid is None else nodes[:-1]
        nodes.append(readers[0])


def _grid(value: fx.Node) -> tuple[Any, ...] | None:
    return value.args[1:] if value.target is DEQUANTIZE else None


def _step(node: fx.Node, known: Shapes) -> tuple[int, int] | None:
    """(0 for rows or 1 for columns, step) of a slice of N x C x H x W that skips some."""
    if node.target is not aten.slice.Tensor or len(node.args) < 5:
        return None
    shape, (axis, start, end, step) = known[_source(node).name], node.args[1:]
    axis = cast(int, axis) % len(shape)
    whole = not start and (end is None or cast(int, end) >= shape[axis])
    return (axis - 2, cast(int, step)) if len(shape) == 4 and axis >= 2 and whole else None


def _padding(node: fx.Node) -> tuple[int, int] | None:
    """Channels of zeros (before, behind) that a padding of N x C x H x W adds and nothing else."""
    if node.target is not aten.pad.default:
        return None
    sides, *how = cast(tuple[list[int], Any], node.args[1:])
    if how[:1] not in ([], ["constant"]) or any(how[1:]):
        return None
    plain = len(sides) == 6 and not any(sides[:4]) and min(sides) >= 0
    return (sides[4], sides[5]) if plain else None


def _convolve(network: Network, nodes: list[fx.Node], known: Shapes) -> None:
    """Let a 1 x 1 convolution with a step, whose weights are ones and zeros, do it all."""
    source, last, channels = _source(nodes[0]), nodes[-1], known[_source(nodes[0]).name][1]
    steps = [1, 1]
    for axis, step in filter(None, (_step(node, known) for node in nodes)):
        steps[axis] *= step
    before, behind = _padding(last) or (0, 0)
    weight = torch.zeros(before + channels + behind, channels, 1, 1)
    weight[range(before, before + channels), range(channels)] = 1
    name = f"{NAME}_{last.name}"
    with network.graph.inserting_before(last):
        value = _weight(network, name, weight, _grid(source) is not None)
        new = network.graph.call_function(aten.conv2d.default, (source, value, None, steps))
    new.meta = dict(last.meta)
    last.replace_all_uses_with(new)
    _erase(last)


def _weight(network: Network, name: str, weight: Tensor, integers: bool) -> fx.Node:
    """The weight, or int8 codes of scale 1 with a dequantize behind them."""
    graph = network.graph
    set_tensor(network, name, (weight.to(torch.int8) if integers else weight).to(network.device))
    node = graph.get_attr(name)
    if not integers:
        return node
    count = len(weight)
    parts = {"scale": torch.ones(count), "zero_point": torch.zeros(count, dtype=torch.int8)}
    for end, tensor in parts.items():
        set_tensor(network, f"{name}_{end}", tensor.to(network.device))
    grid = [graph.get_attr(f"{name}_{end}") for end in parts]
    ends = (-127, 127, torch.int8)
    return graph.call_function(BY_CHANNEL, (node, *grid, 0, *ends))


def _erase(node: fx.Node) -> None:
    """This node and, one after the other, what nothing reads any more for that."""
    sources = node.all_input_nodes
    node.graph.erase_node(node)
    for one in sources:
        if not one.users and one.op == "call_function":
            _erase(one)


def computes_in_integers(layer: fx.Node) -> bool:
    """Whether XNNPACK runs the layer on integers: what it reads and what it gives has a grid.

    Of convolutions, it takes those over one and two dimensions.
    """
    weight, readers = layer.args[1], list(layer.users)
    if len(readers) == 1 and readers[0].target in FUSED:
        readers = list(readers[0].users)
    rounded = [one.target is QUANTIZE for one in readers] == [True]
    by_channel = isinstance(weight, fx.Node) and weight.target is BY_CHANNEL
    fits = layer.target not in VOLUMES and _source(layer).target is DEQUANTIZE
    return fits and rounded and by_channel


def _write_real(network: Network, layer: fx.Node, position: int) -> None:
    """Give a layer the real numbers that its integers stand for, if it has integers there.

    Of biases, XNNPACK makes the same integers again.
    """
    value = layer.args[position] if len(layer.args) > position else None
    if not isinstance(value, fx.Node) or value.op != "call_function" or not _is_constant(value):
        return
    name = f"{NAME}_{layer.name}_{position}"
    set_tensor(network, name, _computed(network, value))
    with network.graph.inserting_before(layer):
        layer.update_arg(position, network.graph.get_attr(name))
    _erase(value)


def _positive_scales(network: Network, weight: fx.Node) -> None:
    """Turn the codes' signs where the scale's is minus."""
    codes, scales = (str(cast(fx.Node, one).target) for one in weight.args[:2])
    signs = network.tensor(scales).sign().to(torch.int8)
    shape = (-1, *[1] * (network.tensor(codes).dim() - 1))
    set_tensor(network, codes, network.tensor(codes) * signs.view(shape))
    set_tensor(network, scales, network.tensor(scales).abs())


def _is_constant(node: fx.Node) -> bool:
    return node.op == "get_attr" or (
        node.op == "call_function" and all(_is_constant(one) for one in node.all_input_nodes)
    )


def _computed(network: Network, node: fx.Node) -> Tensor:
    if node.op == "get_attr":
        return network.tensor(str(node.target)).detach()
    args = fx.node.map_arg(node.args, lambda one: _computed(network, one))
    return cast(Tensor, cast(Any, node.target)(*cast(tuple[Any, ...], args), **node.kwargs))
