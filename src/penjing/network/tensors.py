"""Tensors of a network by their names: put one in, take out what nothing reads."""

from __future__ import annotations

import torch
from torch import nn

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
