"""Tensors of a network by their names: put one in, read it, take out what nothing reads."""

from __future__ import annotations

from torch import Tensor, fx, nn

from penjing.network.graph.arguments import set_argument
from penjing.network.graph.network import Network
from penjing.network.graph.surgery import insert_before


def set_tensor(network: Network, name: str, tensor: Tensor) -> None:
    """Put a parameter or buffer under that name, in place of what was there."""
    _forget(network, name)
    path, _, leaf = name.rpartition(".")
    owner = network.get_submodule(path)
    if isinstance(tensor, nn.Parameter):
        owner.register_parameter(leaf, tensor)
    else:
        owner.register_buffer(leaf, tensor)


def set_parameter(network: Network, name: str, values: Tensor) -> None:
    """Put a parameter that begins with these values under that name, where the others lie."""
    set_tensor(network, name, nn.Parameter(values.to(network.device)))


def insert_tensor(
    network: Network, place: fx.Node, name: str, tensor: Tensor, like: fx.Node | None = None
) -> fx.Node:
    """Put a buffer under that name, where the other tensors lie, and read it in front of a node.

    Args:
        like: see `penjing.network.graph.surgery`.
    """
    set_tensor(network, name, tensor.to(network.device))
    return insert_before(place, name, like=like)


def add_bias(network: Network, layer: fx.Node, weight: str, values: Tensor) -> None:
    """Give a layer without a bias one, named as its weight's neighbour, or if that name is taken
    after the weight itself.

    Args:
        weight: the name of its weight.
        values: (O,).
    """
    name = f"{weight.rpartition('.')[0]}.bias".lstrip(".")
    if name in network.state_dict():
        name = f"{weight}_bias"
    set_parameter(network, name, values)
    set_argument(layer, "bias", insert_before(layer, name))


def free_name(network: Network, name: str) -> str:
    """That name, or with as many underscores behind it as it takes to be no tensor's."""
    taken = [*network.state_dict(), *dict(network.named_buffers())]
    return next(free for k in range(len(taken) + 1) if (free := name + "_" * k) not in taken)


def drop_unused(network: Network) -> None:
    """Remove parameters and buffers that no node reads any more.

    A call that nothing reads still reads its weights: `penjing.network.graph.surgery.erase` it
    first.
    """
    for node in reversed(list(network.graph.nodes)):
        if node.op == "get_attr" and not node.users:
            network.graph.erase_node(node)
    read = {str(node.target) for node in network.graph.nodes if node.op == "get_attr"}
    for name in [*dict(network.named_parameters()), *dict(network.named_buffers())]:
        if name not in read:
            _forget(network, name)


def _forget(network: Network, name: str) -> None:
    path, _, leaf = name.rpartition(".")
    owner = network.get_submodule(path)
    owner._parameters.pop(leaf, None)
    owner._buffers.pop(leaf, None)
