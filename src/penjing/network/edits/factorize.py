"""Factorize: write layers as two or three smaller ones in a row.

`penjing.arith.kernel_factors` says which schemes there are. The last factor keeps the layer's node,
the name of its weight and its bias, so that whatever looks the layer up by name finds its output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from penjing.arith.kernel_factors import full_ranks, split, why_not
from penjing.network.graph.layers import LAYERS, TRANSPOSED, Layer
from penjing.network.graph.network import Network
from penjing.network.graph.surgery import insert_before
from penjing.network.graph.tensors import set_tensor

aten = torch.ops.aten
NAMES = {"matrices": ("reduce",), "channel": ("reduce",), "spatial": ("reduce",),
         "tucker": ("reduce", "core")}  # fmt: skip
"""By scheme, what the factors before the last are called."""
CONVOLVE: dict[int, Any] = {
    1: aten.conv1d.default, 2: aten.conv2d.default, 3: aten.conv3d.default
}  # fmt: skip


def factorize(network: Network, layers: Mapping[str, Mapping[str, Any]]) -> None:
    """Replace layers by their factors, in place.

    The factors are those of the present weight without any data (truncated singular values). A pass
    that has data writes better ones over them.

    Args:
        network: the network.
        layers: by name of a layer's node, the `"scheme"`, and one or two `"ranks"`.
    """
    nodes = {node.name: node for node in network.graph.nodes}
    for name, how in layers.items():
        _replace(network, nodes[name], how["scheme"], tuple(how["ranks"]))


def why_not_factorized(network: Network, node: fx.Node) -> str:
    """Why a layer can't be written as factors at all; empty if it can."""
    if node.target in TRANSPOSED:
        return "it is a transposed convolution"
    if node.target not in LAYERS:
        return "it is no convolution or linear layer"
    layer = Layer(node)
    if layer.weight.op != "get_attr":
        return "its weight is computed or quantized"
    name = layer.weight_name
    reads = [read for read in node.graph.nodes if read.op == "get_attr" and read.target == name]
    if sum(len(read.users) for read in reads) != 1:
        return "its weight is shared with another operator"
    weight = network.tensor(name)
    if not isinstance(weight, nn.Parameter):
        return "its weight is a constant"
    if not weight.is_floating_point():
        return "its weight isn't real"
    if layer.groups != 1:
        return f"it has {layer.groups} groups"
    if weight.dim() != layer.dimensions + 2:
        return f"its weight has {weight.dim()} dimensions"
    return ""


def misfit_of(network: Network, node: fx.Node, scheme: str, ranks: Sequence[int]) -> str:
    """Why a layer can't be written with this scheme and these ranks; empty if it can."""
    if words := why_not_factorized(network, node):
        return words
    shape = network.tensor(Layer(node).weight_name).shape
    if words := why_not(scheme, shape):
        return f"the scheme {scheme!r} can't be used: {words}"
    most = full_ranks(scheme, shape, ranks[0])
    if len(ranks) != len(most):
        return f"the scheme {scheme!r} takes {len(most)} rank(s); found {list(ranks)}"
    if any(rank > full for rank, full in zip(ranks, most, strict=True)):
        return f"the full rank is {_listed(most)}; found {_listed(ranks)}"
    return ""


def factor_nodes(source: fx.Node, last: fx.Node) -> tuple[fx.Node, ...] | None:
    """The nodes of all factors of a layer in order, given what the first reads, and the last.

    None if there are no two or three layers in a row between them.
    """
    nodes = [last]
    while nodes[0].target in LAYERS and Layer(nodes[0]).data is not source:
        nodes.insert(0, Layer(nodes[0]).data)
    layers = all(node.target in LAYERS for node in nodes)
    return tuple(nodes) if layers and len(nodes) in (2, 3) else None


def _replace(network: Network, node: fx.Node, scheme: str, ranks: tuple[int, ...]) -> None:
    layer = Layer(node)
    name, old = layer.weight_name, network.tensor(layer.weight_name)
    with torch.no_grad():  # at a replay the weights may be anything, and are overwritten
        matrix = torch.nan_to_num(old.detach().double().cpu())
        parts = split(scheme, matrix, ranks)
    steps = [_step(layer, scheme, place) for place in range(len(parts))]
    value = layer.data
    for called, part, (target, rest) in zip(NAMES[scheme], parts, steps, strict=False):
        path = _module(network, name, called)
        _store(network, f"{path}.weight", part, old)
        weight = insert_before(node, f"{path}.weight")
        value = _inserted(node, called, target, (value, weight, None, *rest))
        value.meta |= {"layer": path, "factor_of": node.name}
    _store(network, name, parts[-1], old)
    target, rest = steps[-1]
    node.target, node.kwargs = target, {}
    node.args = (value, layer.weight, layer.bias, *rest)


def _step(layer: Layer, scheme: str, place: int) -> tuple[Any, tuple[Any, ...]]:
    """The operator of a factor, and its stride, padding, dilation and groups."""
    if not layer.dimensions:
        return aten.linear.default, ()
    given = (layer.stride, layer.padding, layer.dilation)
    plain = (CONVOLVE[layer.dimensions], (*([value] * layer.dimensions for value in (1, 0, 1)), 1))
    if scheme == "spatial":  # each factor has the arguments of its own side
        mine = (slice(0, 1), slice(1, 2))[place]
        listed = [
            value if isinstance(value, str) else _only(value, mine, usual)
            for value, usual in zip(given, (1, 0, 1), strict=True)
        ]
        return layer.node.target, (*listed, 1)
    if place != (1 if scheme == "tucker" else 0):
        return plain
    listed = [value if isinstance(value, str) else list(value) for value in given]
    return layer.node.target, (*listed, 1)


def _only(sizes: Sequence[int], mine: slice, usual: int) -> list[int]:
    """Of two sizes, the one at `mine`; the other is the usual one, which does nothing."""
    kept = [usual, usual]
    kept[mine] = sizes[mine]
    return kept


def _module(network: Network, weight: str, called: str) -> str:
    """Make a module next to a weight, and return its path.

    It is called after the weight too, if the name is taken.
    """
    path, _, leaf = weight.rpartition(".")
    owner = network.get_submodule(path)
    taken = {*owner._modules, *owner._parameters, *owner._buffers, *dir(type(owner))}
    name = called if called not in taken else f"{leaf}_{called}"
    while name in taken:
        name += "_"
    owner._modules[name] = nn.Module()
    return f"{path}.{name}".lstrip(".")


def _store(network: Network, name: str, values: Tensor, like: Tensor) -> None:
    values = values.to(dtype=like.dtype, device=like.device).contiguous()
    set_tensor(network, name, nn.Parameter(values, requires_grad=like.requires_grad))


def _inserted(node: fx.Node, called: str, target: Any, args: tuple[Any, ...]) -> fx.Node:
    """A node in front of another one, named after it.

    Its own name can't be one that the original network gives to another operator.
    """
    with node.graph.inserting_before(node):
        made = node.graph.create_node(
            "call_function", target, args, {}, name=f"{node.name}_{called}"
        )
    made.meta = dict(node.meta)
    return made


def _listed(ranks: Sequence[int]) -> str:
    return " and ".join(map(str, ranks))
