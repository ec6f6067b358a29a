"""Low rank: which layers of a network can become two factors, and of which ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx

from penjing.arith.kernel_factors import full_ranks
from penjing.measure.costs import mac_terms, totals
from penjing.network import Network
from penjing.network.analysis.rows import why_not_solved
from penjing.network.edits.factorize import misfit_of
from penjing.network.graph.layers import Layer, layers_of
from penjing.network.graph.shapes import shapes

LARGE = 0.1
"""A layer with a smaller share of the network's MACs and of its parameters stays whole: two small
layers take longer than one."""
MOST_UNKNOWNS = 4096
"""So does a layer that reads more values than that, since its factors take minutes to fit."""
LEVELS = (0.5, 0.25, 0.125)
"""The shares of a layer's MACs that its factors may have."""


@dataclass(frozen=True)
class Factorable:
    """A layer that can become two factors.

    Attributes:
        node: the name of its node.
        scheme: `"matrices"`, or `"channel"` for a kernel larger than 1; see
            `penjing.passes.Factorize`.
        ranks: which ones it may have, the largest first.
    """

    node: str
    scheme: str
    ranks: tuple[int, ...]


def factorable(network: Network, multiple: int) -> dict[str, Factorable]:
    """The layers of which low rank may save much, by the path of their module.

    Args:
        multiple: of which widths are multiples where they can be; ranks of half of that.

    >>> import penjing, torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 4))
    >>> factorable(penjing.capture(model, torch.zeros(2, 64)), 8)
    {'0': Factorable(node='linear', scheme='matrices', ranks=(16, 8, 4))}
    """
    known = shapes(network)
    batch = len(torch.utils._pytree.tree_leaves(network.example)[0])
    all_macs, all_params = totals(network)
    layers: dict[str, Factorable] = {}
    for node in layers_of(network):
        layer = Layer(node)
        weight = network.tensor(layer.weight_name)
        macs = sum(math.prod(terms) for terms in mac_terms(node, known.__getitem__)) / batch
        is_large = macs >= LARGE * all_macs or weight.numel() >= LARGE * all_params
        unknowns = weight[0].numel()
        if not is_large or unknowns > MOST_UNKNOWNS or why_not_solved(node, unknowns):
            continue
        path, scheme = _path(network, node), "matrices"
        if any(size > 1 for size in weight.shape[2:]):
            scheme = "channel"
        if path and not misfit_of(network, node, scheme, (1,)):
            ranks = _ranks(tuple(weight.shape), scheme, max(1, multiple // 2))
            layers[path] = Factorable(node.name, scheme, ranks)
    return {name: layer for name, layer in layers.items() if layer.ranks}


def _path(network: Network, node: fx.Node) -> str:
    """The path of a layer's module, if it has one of its own; else empty."""
    path = Layer(node).weight_name.rpartition(".")[0]
    labels = [str(other.meta.get("layer")) for other in layers_of(network)]
    alone = labels.count(path) == 1 and str(node.meta.get("layer")) == path
    return path if alone and not hasattr(network.get_submodule(path), "reduce") else ""


def _ranks(shape: Sequence[int], scheme: str, multiple: int) -> tuple[int, ...]:
    """Multiples whose factors have about these shares of the layer's MACs."""
    outputs, inputs = shape[0], math.prod(shape[1:])
    even = outputs * inputs / (outputs + inputs)
    wanted = {multiple * max(1, round(level * even / multiple)) for level in LEVELS}
    (full,) = full_ranks(scheme, shape)
    return tuple(sorted((rank for rank in wanted if rank < min(even, full)), reverse=True))
