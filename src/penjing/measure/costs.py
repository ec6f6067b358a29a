"""Costs: the parameters, MACs and activation bytes of each layer, from the graph's shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import fx

from penjing.network import Network
from penjing.network.graph.arguments import read_by
from penjing.network.graph.recurrent import RECURRENT, matrices_of
from penjing.network.graph.shapes import shapes

MOST_BYTES = 3 * 2**30  # for the values of two networks that run side by side
T = TypeVar("T")


@dataclass(frozen=True)
class LayerCost:
    """The cost of one operator, for one sample.

    Attributes:
        layer: the path of its module.
        operator: such as `"conv2d"`.
        params: the number of parameters that it is the first to use.
        macs: multiply-accumulates.
        activation_bytes: the size of its output in float32.
    """

    layer: str
    operator: str
    params: int
    macs: int
    activation_bytes: int


def costs(network: Network) -> list[LayerCost]:
    """The costs of all operators in order. A weight that is used twice counts at its first use."""
    known = shapes(network)
    batch = int(torch.utils._pytree.tree_leaves(network.example)[0].shape[0])
    layers = []
    for node, tensors in operators(network, known):
        params = sum(network.tensor(tensor).numel() for tensor in tensors)
        size = _elements(known[node]) * 4 // batch
        macs = sum(math.prod(factors) for factors in mac_terms(node, known.__getitem__)) // batch
        name = str(node.target).removeprefix("aten.").split(".")[0].rstrip("_")
        layers.append(LayerCost(str(node.meta["layer"]), name, params, macs, size))
    return layers


def totals(network: Network) -> tuple[int, int]:
    """The MACs and the parameters of the whole network, for one sample."""
    every = costs(network)
    return sum(cost.macs for cost in every), sum(cost.params for cost in every)


def operators(
    network: Network, known: Mapping[fx.Node, Any]
) -> Iterator[tuple[fx.Node, list[str]]]:
    """The operators that count, in order, each with the weights that it is the first to use.

    Args:
        network: the network.
        known: the shape of each node that returns tensors.
    """
    seen: set[str] = set()
    for node in network.calls():
        if node not in known or "quantize" in str(node.target):
            continue
        tensors = []
        for source in node.all_input_nodes:
            while source.op != "get_attr" and "quantize" in str(source.target):
                source = read_by(source)
            if source.op == "get_attr" and source.target not in seen:
                seen.add(str(source.target))
                if "running_" not in str(source.target):
                    tensors.append(str(source.target))
        yield node, tensors


def peak_activation_bytes(network: Network) -> int:
    """The most bytes of values that are alive at once, for one sample in float32, when the graph
    runs in its order."""
    known = shapes(network)
    batch = int(torch.utils._pytree.tree_leaves(network.example)[0].shape[0])
    nodes = [node for node in network.graph.nodes if node.op in ("placeholder", "call_function")]
    last = {source: node for node in network.graph.nodes for source in node.all_input_nodes}
    live = peak = 0
    sizes = {node: _elements(known[node]) * 4 // batch for node in nodes if node in known}
    for node in nodes:
        live += sizes.get(node, 0)
        peak = max(peak, live)
        live -= sum(sizes.get(source, 0) for source in node.all_input_nodes if last[source] is node)
    return peak


def samples_in_memory(network: Network, samples: int) -> int:
    """How many samples to run at once through this network and another one that it is compared
    with: at most `samples`, fewer if their values would exceed `MOST_BYTES`, but at least two."""
    leaves = torch.utils._pytree.tree_leaves(network.example)
    given: int = sum(int(leaf[0].numel()) * leaf.element_size() for leaf in leaves)
    each = 2 * (peak_activation_bytes(network) + given)
    return max(min(samples, MOST_BYTES // each), 2)


def _elements(shape: Any) -> int:
    if shape and isinstance(shape[0], tuple):
        return sum(math.prod(dims) for dims in shape)
    return math.prod(shape)


def mac_terms(node: fx.Node, dims: Callable[[fx.Node], Sequence[T]]) -> list[tuple[T, ...]]:
    """The MACs of one operator for the whole batch, as a sum of products of dimensions.

    The same code serves for sizes and for expressions over axes. So the cost that allocation
    expects of a cut equals the cost that is counted after it.

    Args:
        node: the operator.
        dims: the dimensions of a node's value, as numbers or as any other type.

    Returns:
        The factors of each term. Empty for an operator that has no MACs.
    """
    name = str(node.target).split(".")[1] if "." in str(node.target) else ""
    inputs = [argument for argument in node.args if isinstance(argument, fx.Node)]
    if name in ("conv1d", "conv2d", "conv3d", "linear"):
        return [(*dims(node), *dims(inputs[1])[1:])]
    if name in ("matmul", "bmm", "mm"):
        return [(*dims(node), dims(inputs[0])[-1])]
    if name == "scaled_dot_product_attention":
        q, k, v = (dims(value) for value in inputs[:3])
        return [(*q[:-1], k[-2], q[-1]), (*q[:-1], k[-2], v[-1])]
    if node.target in RECURRENT:  # each step multiplies by all matrices of all layers, both ways
        return [(*dims(inputs[0])[:-1], *dims(matrix)) for matrix in matrices_of(node)]
    return []
