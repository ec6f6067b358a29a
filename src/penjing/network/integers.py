"""Integers: a fake-quantized network as runtimes take it, with quantize and dequantize nodes."""

from __future__ import annotations

import copy
from typing import cast

import torch
import torch.ao.quantization.fx._decomposed
from torch import Tensor, fx

from penjing.arith.fake_quantize import FAKE_QUANTIZE
from penjing.arith.quantizer import quantized, quantized_bias
from penjing.network.fake_quantized import Grid, grid_of, grids, weight_grids
from penjing.network.network import Network
from penjing.network.tensors import drop_unused, set_tensor

aten = torch.ops.aten
INTEGERS = torch.ops.quantized_decomposed


def with_integers(network: Network) -> Network:
    """A copy whose weights are int8 and whose values are uint8, the same numbers as before.

    Grids of fewer bits keep their integers in eight, cut off where the grid ends. Where a layer's
    input has a grid too, its bias becomes int32 on the grid of the sums. The network itself, if
    nothing in it is rounded.
    """
    if not any(True for _ in grids(network)):
        return network
    new = copy.deepcopy(network)
    scales = {grid.node: new.tensor(grid.scale).detach().cpu() for grid in grids(new)}
    for layer, grid in weight_grids(new).items():
        data, bias = grid_of(layer.args[0]), layer.args[2] if len(layer.args) > 2 else None
        _weight(new, layer, grid, scales[grid.node])
        if data is not None and isinstance(bias, fx.Node) and bias.target is FAKE_QUANTIZE:
            _bias(new, layer, bias, scales[grid.node] * scales[data.node])
    for grid in list(grids(new)):
        _value(new, grid, float(scales[grid.node]))
    drop_unused(new)
    new.compile_graph()
    return new


def _value(network: Network, grid: Grid, scale: float) -> None:
    graph, ends = network.graph, (0, 255, torch.uint8)
    with graph.inserting_before(grid.node):
        codes = graph.call_function(
            INTEGERS.quantize_per_tensor.default, (grid.source, scale, grid.zero_point, *ends)
        )
        made = [codes]
        if (grid.low, grid.high) != (0, 255):
            made.append(graph.call_function(aten.clamp.default, (codes, grid.low, grid.high)))
        value = graph.call_function(
            INTEGERS.dequantize_per_tensor.default, (made[-1], scale, grid.zero_point, *ends)
        )
    for one in (*made, value):
        one.meta = dict(grid.node.meta)
    grid.node.replace_all_uses_with(value)
    graph.erase_node(grid.node)


def _weight(network: Network, layer: fx.Node, grid: Grid, scales: Tensor) -> None:
    name = str(grid.source.target)
    codes = quantized(network.tensor(name).detach().cpu(), scales, grid.low, grid.high)
    if scales.dim() == 1:
        _dequantized(network, layer, 1, name, codes, scales)
    else:
        _dequantized_by_group(network, layer, name, codes, scales)
    network.graph.erase_node(grid.node)


def _bias(network: Network, layer: fx.Node, rounded: fx.Node, grid: Tensor) -> None:
    source, scale = (cast(fx.Node, one) for one in rounded.args[:2])
    name = str(source.target)
    _dequantized(network, layer, 2, name, quantized_bias(network.tensor(name).cpu(), grid), grid)
    network.graph.erase_node(rounded)
    network.graph.erase_node(scale)


def _dequantized(
    network: Network, layer: fx.Node, position: int, name: str, codes: Tensor, scales: Tensor
) -> None:
    kind = codes.dtype
    limit = torch.iinfo(kind).max
    parts = {"": codes, "_scale": scales, "_zero_point": torch.zeros(len(scales), dtype=kind)}
    with network.graph.inserting_before(layer):
        nodes = [_put(network, layer, name + end, one) for end, one in parts.items()]
        value = network.graph.call_function(
            INTEGERS.dequantize_per_channel.default, (*nodes, 0, -limit, limit, kind)
        )
    value.meta = dict(layer.meta)
    layer.update_arg(position, value)


def _dequantized_by_group(
    network: Network, layer: fx.Node, name: str, codes: Tensor, scales: Tensor
) -> None:
    parts = {
        "": codes,
        "_scale": scales,
        "_zero_point": torch.zeros_like(scales, dtype=torch.int32),
    }
    width = codes[0].numel() // scales.shape[1]
    with network.graph.inserting_before(layer):
        nodes = [_put(network, layer, name + end, one) for end, one in parts.items()]
        value = network.graph.call_function(
            INTEGERS.dequantize_per_channel_group.default,
            (*nodes, -127, 127, torch.int8, width, torch.float32),
        )
    value.meta = dict(layer.meta)
    layer.update_arg(1, value)


def _put(network: Network, layer: fx.Node, name: str, tensor: Tensor) -> fx.Node:
    set_tensor(network, name, tensor.to(network.device))
    node = network.graph.get_attr(name)
    node.meta = dict(layer.meta)
    return node
