"""Work: what stands for the time on a device that isn't here and whose vendor estimates nothing."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch

from penjing.measure.costs import mac_terms, operators
from penjing.network import Network
from penjing.network.graph.layers import LAYERS, Layer
from penjing.network.graph.qparams import qparams_of, value_qparams
from penjing.network.graph.recurrent import RECURRENT
from penjing.network.graph.shapes import shapes

INTEGER, HALF = 0.25, 0.5
"""What a MAC of 8-bit integers and one of float16 count: four and two of these values fit where one
of float32 does."""


def work(network: Network, halves: bool = False, layers: Collection[str] | None = None) -> float:
    """The MACs of one sample, each by the width of what it multiplies.

    A vector register holds four 8-bit integers where it holds one value of float32, so a MAC of
    integers counts a quarter. What memory costs, and how good a device's kernels are, isn't in it.

    Args:
        network: the network, with its rounding.
        halves: whether its file computes in float16.
        layers: the names of those that count; None for all.

    >>> import penjing
    >>> network = penjing.capture(torch.nn.Linear(8, 4), torch.zeros(2, 8))
    >>> work(network), work(network, halves=True)
    (32.0, 16.0)
    """
    known = shapes(network)
    batch = int(torch.utils._pytree.tree_leaves(network.example)[0].shape[0])
    rounds_values = bool(value_qparams(network))
    total = 0.0
    for node, _ in operators(network, known):
        if layers is not None and str(node.meta["layer"]) not in layers:
            continue
        macs = sum(math.prod(sizes) for sizes in mac_terms(node, known.__getitem__)) / batch
        factors = [Layer(node).weight] if node.target in LAYERS else node.all_input_nodes
        is_rounded = rounds_values and any(map(qparams_of, factors))
        is_integer = is_rounded and node.target not in RECURRENT  # which computes in float
        total += macs * (INTEGER if is_integer else HALF if halves else 1.0)
    return total
