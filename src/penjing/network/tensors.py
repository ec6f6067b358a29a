"""Tensors of a network by their names: put one in, take out what nothing reads."""

from __future__ import annotations

import torch
from torch import fx, nn

from penjing.network.network import Network


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


def add_bias(network: Network, layer: fx.Node, weight: str, values: torch.Tensor) -> None:
    """Give a layer without a bias one, named as its weight's neighbour, or if that name is taken
    after the weight itself.

    Args:
        weight: the name of its weight.
        values: (O,).
    """
    name = f"{weight.rpartition('.')[0]}.bias".lstrip(".")
    if name in network.state_dict():
        name = f"{weight}_bias"
    set_tensor(network, name, nn.Parameter(values.to(network.device)))
    with network.graph.inserting_before(layer):
        node = network.graph.get_attr(name)
    node.meta = dict(layer.meta)
    layer.args = (*layer.args[:2], node, *layer.args[3:])


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
