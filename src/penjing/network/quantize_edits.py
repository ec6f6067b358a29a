"""Edits that turn a network to integers: fold batch norm, insert quantize/dequantize pairs.

Both are mechanical; what to quantize with which scale was decided by the pass. The operators are
`quantized_decomposed`, which every runtime's exporter understands.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from penjing.arith.quantizer import round_bias, round_weight
from penjing.contract import Json
from penjing.network.network import Network

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch.ao.quantization.fx._decomposed  # registers the operators

WEIGHTED = {
    torch.ops.aten.conv1d.default,
    torch.ops.aten.conv2d.default,
    torch.ops.aten.linear.default,
}
"""Operators (input, weight_O..., bias, ...) whose weight has the output channels first."""
QUANTIZED = torch.ops.quantized_decomposed
BATCH_NORM = torch.ops.aten.batch_norm.default


def fold_batch_norm(network: Network) -> None:
    """Fold each evaluation-mode batch norm into the convolution or linear right before it.

    w' = w * g / sqrt(var + eps); b' = (b - mean) * g / sqrt(var + eps) + beta, in float64. A batch
    norm stays where its input has other users or the weight is shared with another layer.
    """
    for node in list(network.graph.nodes):
        if node.target is BATCH_NORM and _foldable(node):
            _fold(network, node)
    remove_unused(network)


def _foldable(norm: fx.Node) -> bool:
    layer = norm.args[0]
    if not isinstance(layer, fx.Node) or layer.target not in WEIGHTED or len(layer.users) != 1:
        return False
    if layer.target is torch.ops.aten.linear.default and norm.meta.get("rank", 2) != 2:
        return False
    tensors = [one for one in layer.args[1:3] if one is not None]
    return norm.args[3] is not None and all(
        isinstance(one, fx.Node) and one.op == "get_attr" and not shared(one) for one in tensors
    )


def shared(tensor: fx.Node) -> bool:
    """True if a parameter is read by more than one operator (tied weights)."""
    readers = [
        user
        for node in tensor.graph.nodes
        if node.op == "get_attr" and node.target == tensor.target
        for user in node.users
    ]
    return len(readers) > 1


def _fold(network: Network, norm: fx.Node) -> None:
    layer = norm.args[0]
    assert isinstance(layer, fx.Node)

    def read(argument: Any, otherwise: float) -> Tensor:
        if isinstance(argument, fx.Node):
            return network.tensor(str(argument.target)).detach().double()
        return torch.tensor(otherwise, dtype=torch.float64)

    weight = read(layer.args[1], 0.0)
    mean, variance = read(norm.args[3], 0.0), read(norm.args[4], 1.0)
    factor = read(norm.args[1], 1.0) / torch.sqrt(variance + float(norm.args[7]))  # type: ignore[arg-type]
    bias = (read(layer.args[2] if len(layer.args) > 2 else None, 0.0) - mean) * factor
    bias = bias + read(norm.args[2], 0.0)
    weight = weight * factor.reshape(-1, *[1] * (weight.dim() - 1))
    name = str(layer.args[1].target)  # type: ignore[union-attr]
    old = network.tensor(name)
    stem, _, last = name.rpartition(".")
    bias_name = f"{stem}.bias" if stem and last == "weight" else f"{name}_bias"
    if len(layer.args) > 2 and isinstance(layer.args[2], fx.Node):
        bias_name = str(layer.args[2].target)
    for key, value in ((name, weight), (bias_name, bias)):
        _store(network, key, nn.Parameter(value.to(old.dtype), requires_grad=old.requires_grad))
    with network.graph.inserting_before(layer):
        read_bias = network.graph.create_node("get_attr", bias_name)
    read_bias.meta = dict(layer.meta)
    layer.args = (*layer.args[:2], read_bias, *layer.args[3:])
    norm.replace_all_uses_with(layer)
    network.graph.erase_node(norm)


def quantize(
    network: Network,
    activations: Mapping[str, Mapping[str, Json]],
    weights: Mapping[str, Mapping[str, Json]],
) -> None:
    """Put the named layers' weights into int8 and quantize/dequantize pairs behind values.

    Args:
        activations: node name to `{"scale", "zero_point"}`; uint8. All users of the node read the
            dequantized value.
        weights: name of a convolution or linear node to `{"scale": [one per output channel],
            "input_scale": float}`; the bias becomes int32 with their product as its scale.
    """
    nodes = {node.name: node for node in network.graph.nodes}
    for name, choice in weights.items():
        _quantize_layer(network, nodes[name], choice)
    for name, choice in activations.items():
        _quantize_value(nodes[name], float(choice["scale"]), int(choice["zero_point"]))
    remove_unused(network)


def _quantize_value(node: fx.Node, scale: float, zero_point: int) -> None:
    grid = (scale, zero_point, 0, 255, torch.uint8)
    graph, users = node.graph, list(node.users)
    after = node
    if node.op == "placeholder":
        after = [one for one in graph.nodes if one.op == "placeholder"][-1]
    with graph.inserting_after(after):
        stored = graph.call_function(QUANTIZED.quantize_per_tensor.default, (node, *grid))
    with graph.inserting_after(stored):
        value = graph.call_function(QUANTIZED.dequantize_per_tensor.default, (stored, *grid))
    stored.meta, value.meta = dict(node.meta), dict(node.meta)
    for user in users:
        user.replace_input_with(node, value)


def _quantize_layer(network: Network, layer: fx.Node, choice: Mapping[str, Json]) -> None:
    scale = torch.tensor(choice["scale"], dtype=torch.float32)
    name = str(layer.args[1].target)  # type: ignore[union-attr]
    weight = round_weight(network.tensor(name).float(), scale)
    integers = {1: (name, weight, scale, -127, 127, torch.int8)}
    if len(layer.args) > 2 and isinstance(layer.args[2], fx.Node):
        bias_name = str(layer.args[2].target)
        both = scale * float(choice["input_scale"])
        bias = round_bias(network.tensor(bias_name), both)
        integers[2] = (bias_name, bias, both, -(2**31), 2**31 - 1, torch.int32)
    graph = network.graph
    for position, (key, values, scales, low, high, dtype) in integers.items():
        stored = {
            f"{key}_{str(dtype).removeprefix('torch.')}": values,
            f"{key}_scale": scales,
            f"{key}_zero_point": torch.zeros(len(scales), dtype=torch.int64),
        }
        with graph.inserting_before(layer):
            reads = []
            for one, tensor in stored.items():
                _store(network, one, tensor)
                reads.append(graph.create_node("get_attr", one))
            real = graph.call_function(
                QUANTIZED.dequantize_per_channel.default, (*reads, 0, low, high, dtype)
            )
        for node in (*reads, real):
            node.meta = dict(layer.meta)
        layer.update_arg(position, real)


def _store(network: Network, name: str, value: Tensor) -> None:
    """Set the parameter or buffer of that dotted name, where the old one lay."""
    path, _, last = name.rpartition(".")
    owner = network.get_submodule(path)
    if hasattr(owner, last):
        delattr(owner, last)
    if isinstance(value, nn.Parameter):
        owner.register_parameter(last, value)
    else:
        owner.register_buffer(last, value)


def remove_unused(network: Network) -> None:
    """Erase reads of tensors that nothing uses, and the tensors that were read only there."""
    graph = network.graph
    unused = [node for node in graph.nodes if node.op == "get_attr" and not node.users]
    for node in unused:
        graph.erase_node(node)
    used = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    for name in {str(node.target) for node in unused} - used:
        path, _, last = name.rpartition(".")
        owner = network.get_submodule(path)
        if hasattr(owner, last):
            delattr(owner, last)
