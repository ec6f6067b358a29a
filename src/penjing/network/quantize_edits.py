"""Edits that turn a float network into one of integers: fold batch norm, pool means, quantize.

All decisions (which values, which scales) come with the edit; nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed
from torch import fx, nn

from penjing.arith.quantizer import quantized_bias, quantized_weight
from penjing.network.batch_norm import batch_norm_of
from penjing.network.network import Network

aten = torch.ops.aten
CONVOLUTIONS = {
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv3d.default,
    aten.conv1d.padding,
    aten.conv2d.padding,
    aten.conv3d.padding,
}
INTEGERS = torch.ops.quantized_decomposed


def fold_batch_norm(network: Network) -> None:
    """Fold each batch norm into the convolution or linear layer that alone feeds it, in place.

    w' = w g / sqrt(v + eps), b' = (b - m) g / sqrt(v + eps) + beta, for evaluation mode.
    """
    for node in list(network.graph.nodes):
        producer = node.args[0] if node.target is aten.batch_norm.default else None
        if not isinstance(producer, fx.Node) or len(producer.users) != 1:
            continue
        if producer.target not in CONVOLUTIONS | {aten.linear.default}:
            continue
        weight_node = producer.args[1]
        if not isinstance(weight_node, fx.Node) or len(weight_node.users) != 1:
            continue  # a shared weight can't take two norms
        _fold(network, producer, node)
    drop_unused(network)


def _fold(network: Network, producer: fx.Node, norm: fx.Node) -> None:
    found = batch_norm_of(network, norm)
    assert found is not None
    with torch.no_grad():
        factor = found.gain
        name = str(producer.args[1].target)  # type: ignore[union-attr]
        weight = network.tensor(name)
        shape = (-1, *[1] * (weight.dim() - 1))
        bias_node = producer.args[2] if len(producer.args) > 2 else None
        bias = network.tensor(str(bias_node.target)) if isinstance(bias_node, fx.Node) else 0.0
        shift = (bias - found.mean.double()) * factor + (0.0 if found.beta is None else found.beta)
        weight.copy_(weight.double() * factor.view(shape))
        bias_name = f"{name.rpartition('.')[0]}.bias".lstrip(".")
        if isinstance(bias_node, fx.Node):
            network.tensor(str(bias_node.target)).copy_(shift)
        else:
            set_tensor(network, bias_name, nn.Parameter(shift.to(weight.dtype)))
            with network.graph.inserting_before(producer):
                new = network.graph.get_attr(bias_name)
            new.meta = dict(producer.meta)
            producer.args = (*producer.args[:2], new, *producer.args[3:])
    norm.replace_all_uses_with(producer)
    network.graph.erase_node(norm)


def pool_means(network: Network) -> None:
    """Write a mean over the last two of four dimensions as an average pool, in place.

    The same numbers; runtimes have an integer kernel for the pool and none for the mean.
    """
    for node in list(network.graph.nodes):
        if node.target is not aten.mean.dim or not isinstance(node.args[1], list | tuple):
            continue
        if sorted(int(one) % 4 for one in node.args[1]) != [2, 3]:
            continue
        keep = bool(node.args[2]) if len(node.args) > 2 else bool(node.kwargs.get("keepdim"))
        with network.graph.inserting_before(node):
            new = network.graph.call_function(
                aten.adaptive_avg_pool2d.default, (node.args[0], [1, 1])
            )
            new.meta = dict(node.meta)
            if not keep:
                new = network.graph.call_function(aten.flatten.using_ints, (new, 1))
                new.meta = dict(node.meta)
        node.replace_all_uses_with(new)
        network.graph.erase_node(node)


def quantize(
    network: Network,
    activations: Mapping[str, Mapping[str, Any]],
    weights: Mapping[str, Mapping[str, Any]],
) -> None:
    """Round the named values to uint8 and the named layers' weights to int8, in place.

    Args:
        activations: name of a node to `{"scale", "zero_point"}`; all its users read the rounded
            value.
        weights: name of a convolution or linear node to `{"scales": one per output channel,
            "input_scale": float}`; its weight becomes int8, its bias int32 on the accumulator's
            grid, both kept as buffers under their own names.
    """
    nodes = {node.name: node for node in network.graph.nodes}
    for name, one in activations.items():
        _round(network, nodes[name], float(one["scale"]), int(one["zero_point"]))
    for name, one in weights.items():
        scales = torch.tensor(one["scales"], dtype=torch.float32)
        node = nodes[name]
        weight = str(node.args[1].target)
        codes = quantized_weight(network.tensor(weight).cpu(), scales)
        _integer(network, node, 1, weight, codes, scales)
        if len(node.args) > 2 and node.args[2] is not None:
            bias = str(node.args[2].target)
            grid = scales * float(one["input_scale"])
            codes = quantized_bias(network.tensor(bias).cpu(), grid)
            _integer(network, node, 2, bias, codes, grid)
    drop_unused(network)


def _round(network: Network, node: fx.Node, scale: float, zero_point: int) -> None:
    grid = (scale, zero_point, 0, 255, torch.uint8)
    with network.graph.inserting_after(node):
        codes = network.graph.call_function(INTEGERS.quantize_per_tensor.default, (node, *grid))
    with network.graph.inserting_after(codes):
        value = network.graph.call_function(INTEGERS.dequantize_per_tensor.default, (codes, *grid))
    codes.meta, value.meta = dict(node.meta), dict(node.meta)
    node.replace_all_uses_with(value, delete_user_cb=lambda user: user is not codes)


def _integer(
    network: Network, node: fx.Node, position: int, name: str, codes: Any, scales: Any
) -> None:
    kind = codes.dtype
    limit = torch.iinfo(kind).max
    set_tensor(network, name, codes)
    set_tensor(network, f"{name}_scale", scales)
    set_tensor(network, f"{name}_zero_point", torch.zeros(len(scales), dtype=kind))
    with network.graph.inserting_before(node):
        parts = [network.graph.get_attr(name + end) for end in ("", "_scale", "_zero_point")]
        value = network.graph.call_function(
            INTEGERS.dequantize_per_channel.default, (*parts, 0, -limit, limit, kind)
        )
    for one in (*parts, value):
        one.meta = dict(node.meta)
    node.update_arg(position, value)


def set_tensor(network: Network, name: str, tensor: torch.Tensor) -> None:
    """Put a parameter or buffer under that name, in place of what was there."""
    path, _, leaf = name.rpartition(".")
    owner = network.get_submodule(path)
    owner._parameters.pop(leaf, None)
    owner._buffers.pop(leaf, None)
    if isinstance(tensor, nn.Parameter):
        owner.register_parameter(leaf, tensor)
    else:
        owner.register_buffer(leaf, tensor)


def drop_unused(network: Network) -> None:
    """Remove parameters and nodes that nothing reads any more, but not the inputs."""
    for node in reversed(list(network.graph.nodes)):
        if node.op == "get_attr" and not node.users:
            network.graph.erase_node(node)
    read = {str(node.target) for node in network.graph.nodes if node.op == "get_attr"}
    for name in [*dict(network.named_parameters()), *dict(network.named_buffers())]:
        if name not in read:
            path, _, leaf = name.rpartition(".")
            owner = network.get_submodule(path)
            owner._parameters.pop(leaf, None)
            owner._buffers.pop(leaf, None)
