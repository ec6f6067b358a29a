"""Tensors: add tensors to a network by name, read them, and drop those that nothing reads."""

from __future__ import annotations

from torch import Tensor, fx, nn

from penjing.network.graph.arguments import set_argument
from penjing.network.graph.network import Network
from penjing.network.graph.places import names_by_tensor, place_of, places
from penjing.network.graph.surgery import insert_before


def set_tensor(network: Network, name: str, tensor: Tensor) -> None:
    """Store a parameter or buffer under that name, replacing any that has the name."""
    place_of(network, name).register(tensor)


def set_parameter(network: Network, name: str, values: Tensor) -> None:
    """Store a new parameter with these values under that name, on the network's device."""
    set_tensor(network, name, nn.Parameter(values.to(network.device)))


def insert_tensor(
    network: Network, place: fx.Node, name: str, tensor: Tensor, like: fx.Node | None = None
) -> fx.Node:
    """Store a buffer under that name, on the network's device, and read it in front of a node.

    Args:
        network: the network.
        place: the node in front of which the tensor is read.
        name: the name of the buffer.
        tensor: its values.
        like: the node whose layer and source line the new node takes; `place` by default.
    """
    set_tensor(network, name, tensor.to(network.device))
    return insert_before(place, name, like=like)


def add_bias(network: Network, layer: fx.Node, weight: str, values: Tensor) -> None:
    """Give a bias to a layer that has none.

    The bias is called `bias`, next to the weight. If that name is taken, it is called after the
    weight.

    Args:
        network: the network.
        layer: the layer's node.
        weight: the name of its weight.
        values: the bias, (O,).
    """
    name = f"{weight.rpartition('.')[0]}.bias".lstrip(".")
    if name in places(network):
        name = f"{weight}_bias"
    set_parameter(network, name, values)
    set_argument(layer, "bias", insert_before(layer, name))


def free_name(network: Network, name: str) -> str:
    """The name itself if no tensor has it, or else the name with underscores appended."""
    taken = places(network)
    return next(free for k in range(len(taken) + 1) if (free := name + "_" * k) not in taken)


def drop_unused(network: Network) -> None:
    """Remove the parameters and buffers that no node reads.

    A call whose result nothing reads still reads its weights. Remove it first with
    `penjing.network.graph.surgery.erase`.
    """
    for node in reversed(list(network.graph.nodes)):
        if node.op == "get_attr" and not node.users:
            network.graph.erase_node(node)
    read = {str(node.target) for node in network.graph.nodes if node.op == "get_attr"}
    for names in names_by_tensor(network).values():
        if read.isdisjoint(names):
            for name in names:
                place_of(network, name).clear()
