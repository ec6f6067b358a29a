"""Operators: what a network's time and its bytes are sums of."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from penjing.measure.costs import mac_terms, operators
from penjing.network import Network
from penjing.network.edits.bypass import repeats
from penjing.network.graph.layers import LAYERS, Layer
from penjing.network.graph.shapes import shapes
from penjing.search.predict.additive import FEATURES, Features

BATCH_NORM = torch.ops.aten.batch_norm.default
Shapes = Mapping[fx.Node, Any]


def features(network: Network) -> Features:
    """What a time is a sum of: by kind of operator, how many there are, their MACs, and the values
    they write; one sample. A kind is an operator with its kernel, stride and groups, and the size
    of its image.

    >>> import penjing
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU())
    >>> known = features(penjing.capture(model, torch.zeros(2, 3, 4, 4)))
    >>> {kind: values.tolist() for kind, values in known.items()}
    {'conv2d 3x3 on 4x4': [1.0, 3456.0, 128.0], 'relu': [1.0, 0.0, 128.0]}
    """
    batch = int(torch.utils._pytree.tree_leaves(network.example)[0].shape[0])

    def counted(node: fx.Node, _: Sequence[str], known: Shapes) -> tuple[str, float, float]:
        macs = sum(math.prod(factors) for factors in mac_terms(node, known.__getitem__))
        return _kind(node, known), macs / batch, math.prod(known[node]) / batch

    return _summed(network, counted)


def stored_features(network: Network) -> Features:
    """What the bytes of a file are a sum of: by operator, how many there are, their parameters, and
    the output channels of layers.

    >>> import penjing
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU())
    >>> known = stored_features(penjing.capture(model, torch.zeros(2, 3, 4, 4)))
    >>> {kind: values.tolist() for kind, values in known.items()}
    {'conv2d': [1.0, 224.0, 8.0], 'relu': [1.0, 0.0, 0.0]}
    """

    def counted(node: fx.Node, weights: Sequence[str], known: Shapes) -> tuple[str, float, float]:
        params = sum(network.tensor(weight).numel() for weight in weights)
        channels = known[Layer(node).weight][0] if node.target in LAYERS else 0
        return _name(node), params, channels

    return _summed(network, counted)


def _summed(
    network: Network, counted: Callable[[fx.Node, Sequence[str], Shapes], tuple[str, float, float]]
) -> Features:
    """By kind of operator that a file has, how many there are, and two figures.

    Args:
        network: the network.
        counted: gives an operator's kind and its two figures, from the weights that it is the first
            to use, and the shapes of all values.
    """
    known = shapes(network)
    totals: dict[str, NDArray[np.float64]] = defaultdict(lambda: np.zeros(FEATURES))
    for node, weights in operators(network, known):
        dims = known[node]
        if dims and not isinstance(dims[0], tuple) and not _is_free(node):
            kind, *figures = counted(node, weights, known)
            totals[kind] += (1, *figures)
    return dict(totals)


def _name(node: fx.Node) -> str:
    return str(node.target).removeprefix("aten.").split(".")[0].rstrip("_")


def _is_free(node: fx.Node) -> bool:
    """Whether it is no operator in a file: a batch norm that becomes part of the layer before it,
    or a ReLU of a ReLU."""
    is_folded = node.target is BATCH_NORM and getattr(node.args[0], "target", None) in LAYERS
    return is_folded or repeats(node)


def _kind(node: fx.Node, known: Shapes) -> str:
    """What operators have in common whose times follow one formula."""
    name = _name(node)
    if node.target not in LAYERS:
        return name
    layer = Layer(node)
    if not layer.dimensions:
        return name
    kernel, image = ("x".join(map(str, known[value][2:])) for value in (layer.weight, node))
    words = [name, kernel, "in groups"] if layer.groups > 1 else [name, kernel]
    if max(layer.stride) > 1:
        words += ["with stride", "x".join(map(str, layer.stride))]
    return " ".join([*words, "on", image])
