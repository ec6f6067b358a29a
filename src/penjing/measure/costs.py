"""Costs: parameters, MACs and activation bytes of each layer, from the graph's shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import fx

from penjing.network import Network
from penjing.network.graph.arguments import read_by
from penjing.network.graph.shapes import shapes

MOST_BYTES = 3 * 2**30  # of the values that two networks hold, run side by side
T = TypeVar("T")


@dataclass(frozen=True)
class LayerCost:
    """One operator, for one sample.

    Attributes:
        layer: module path.
        operator: such as `"conv2d"`.
        macs: multiply-accumulates.
        activation_bytes: of its output, in float32.
    """

    layer: str
    operator: str
    params: int
    macs: int
    activation_bytes: int


def costs(network: Network) -> list[LayerCost]:
    """The operators in order; a weight used twice is counted at its first use."""
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


def operators(
    network: Network, known: Mapping[fx.Node, Any]
) -> Iterator[tuple[fx.Node, list[str]]]:
    """The operators that count, in order, each with the weights that it is the first to use.

    Args:
        known: the shape of every node that gives tensors.
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
    """The most that lives at once along the graph's order, for one sample, in float32."""
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
    """At most so many samples, fewer where the values of two networks, this one and the one that
    it is compared with, would take more than `MOST_BYTES`; two or more."""
    leaves = torch.utils._pytree.tree_leaves(network.example)
    given: int = sum(int(leaf[0].numel()) * leaf.element_size() for leaf in leaves)
    each = 2 * (peak_activation_bytes(network) + given)
    return max(min(samples, MOST_BYTES // each), 2)


def _elements(shape: Any) -> int:
    if shape and isinstance(shape[0], tuple):
        return sum(math.prod(dims) for dims in shape)
    return math.prod(shape)


def mac_terms(node: fx.Node, dims: Callable[[fx.Node], Sequence[T]]) -> list[tuple[T, ...]]:
    """The MACs of one operator for the whole batch: a sum of products of dimensions.

    Written once for sizes and for expressions over axes, so that what allocation expects of a cut
    is what is counted after it.

    Args:
        dims: the dimensions of a node's value, as numbers or as anything else that multiplies.

    Returns:
        The factors of each summand; nothing for an operator that multiplies no weights or values.
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
    return []
