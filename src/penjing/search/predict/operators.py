"""Operators: what a network's time and its bytes are sums of."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
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
    known = shapes(network)
    batch = int(torch.utils._pytree.tree_leaves(network.example)[0].shape[0])
    totals: dict[str, NDArray[np.float64]] = defaultdict(lambda: np.zeros(FEATURES))
    for node, _ in operators(network, known):
        dims = known[node]
        if not dims or isinstance(dims[0], tuple) or _is_free(node):
            continue
        macs = sum(math.prod(factors) for factors in mac_terms(node, known.__getitem__))
        kind = _kind(node, dims, known)
        totals[kind] += (1, macs / batch, math.prod(dims) / batch)
    return dict(totals)


def stored_features(network: Network) -> Features:
    """What the bytes of a file are a sum of: by operator, how many there are, their parameters, and
    the output channels of layers.

    >>> import penjing
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU())
    >>> known = stored_features(penjing.capture(model, torch.zeros(2, 3, 4, 4)))
    >>> {kind: values.tolist() for kind, values in known.items()}
    {'conv2d': [1.0, 224.0, 8.0], 'relu': [1.0, 0.0, 0.0]}
    """
    known = shapes(network)
    totals: dict[str, NDArray[np.float64]] = defaultdict(lambda: np.zeros(FEATURES))
    for node, tensors in operators(network, known):
        dims = known[node]
        if not dims or isinstance(dims[0], tuple) or _is_free(node):
            continue
        params = sum(network.tensor(tensor).numel() for tensor in tensors)
        channels = known[Layer(node).weight][0] if node.target in LAYERS else 0
        totals[_name(node)] += (1, params, channels)
    return dict(totals)


def _name(node: fx.Node) -> str:
    return str(node.target).removeprefix("aten.").split(".")[0].rstrip("_")


def _is_free(node: fx.Node) -> bool:
    """Whether it is no operator in a file: a batch norm that becomes part of the layer before it,
    or a ReLU of a ReLU."""
    is_folded = node.target is BATCH_NORM and getattr(node.args[0], "target", None) in LAYERS
    return is_folded or repeats(node)


def _kind(node: fx.Node, dims: Sequence[int], known: Mapping[fx.Node, Any]) -> str:
    """What operators have in common whose times follow one formula."""
    name = _name(node)
    if node.target not in LAYERS:
        return name
    layer = Layer(node)
    if not layer.dimensions:
        return name
    kernel, image = ("x".join(map(str, sizes)) for sizes in (known[layer.weight][2:], dims[2:]))
    words = [name, kernel, "in groups"] if layer.groups > 1 else [name, kernel]
    if max(layer.stride) > 1:
        words += ["with stride", "x".join(map(str, layer.stride))]
    return " ".join([*words, "on", image])
