"""Weights: the layers that own their weight, for passes that work on single weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import fx

from penjing.contract import LeftAlone
from penjing.errors import InputError
from penjing.network import Network
from penjing.network.graph.layers import Layer, layers_of
from penjing.passes.names import is_in, require_names


@dataclass
class Choice:
    """The layers to work on, and those that are left alone.

    Attributes:
        layers: by name of the weight, the name of the layer.
        nodes: their nodes, in the same order.
        ends: the weights of the first and the last layer of the network.
        left: the others, and why.
    """

    layers: dict[str, str] = field(default_factory=dict)
    nodes: list[fx.Node] = field(default_factory=list)
    ends: set[str] = field(default_factory=set)
    left: list[LeftAlone] = field(default_factory=list)


def own_weights(
    network: Network,
    only: Sequence[str],
    skip: Sequence[str],
    why: Callable[[fx.Node, bool], str],
) -> Choice:
    """Sort the convolutions and linear layers of a network.

    Args:
        network: the network.
        only: names of layers, or prefixes of names, to take; all if there are none.
        skip: names of layers, or prefixes of names, to leave alone.
        why: says why a layer can't be taken, given its node and whether it is the first or the
            last; empty if it can.

    Raises:
        InputError: `only` or `skip` names an unknown layer, or `only` one that can't be taken.
    """
    nodes, choice = layers_of(network), Choice()
    names = [str(node.meta["layer"]) for node in nodes]
    for option, given in (("layers", only), ("skip", skip)):
        require_names(option, given, names)
    readers = Counter(
        str(node.target)
        for node in network.graph.nodes
        if node.op == "get_attr"
        for _ in node.users
    )
    for node, layer in zip(nodes, names, strict=True):
        weight, named = Layer(node).weight, any(is_in(layer, name) for name in only)
        at_end = node in (nodes[0], nodes[-1])
        if any(is_in(layer, name) for name in skip):
            reason = "it is listed in skip"
        elif only and not named:
            reason = "it isn't listed in layers"
        elif weight.op != "get_attr" or readers[str(weight.target)] > 1:
            reason = "its weight is computed, or shared with another layer"
        else:
            reason = why(node, at_end and not named)
        if not reason:
            choice.layers[str(weight.target)] = layer
            choice.nodes.append(node)
            choice.ends |= {str(weight.target)} if at_end and not named else set()
            continue
        if layer in only:
            raise InputError(f"layers names {layer!r}, which can't be taken: {reason}")
        choice.left.append(LeftAlone(layer, reason))
    return choice
