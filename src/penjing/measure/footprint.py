"""Footprint: about how many bytes a network takes on a device, before there is a file.

This is an estimate from the graph, by which penjing refuses early what can't fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from penjing.arith.binary import BINARIZE
from penjing.arith.ternary import TERNARIZE
from penjing.measure.costs import peak_activation_bytes
from penjing.network import Network
from penjing.network.edits.fake_quantize import unrounded
from penjing.network.graph.arguments import read_by
from penjing.network.graph.qparams import qparams_of

CODE_BITS = {TERNARIZE: 1.6, BINARIZE: 1.0}
"""The bits of a ternary or binary weight in a file."""


@dataclass(frozen=True)
class Footprint:
    """Estimated bytes.

    Attributes:
        weight_bytes: the size of all weights. A quantized weight counts with its bits.
        value_bytes: the size of the values that are alive at once, for one sample. One byte each if
            values are quantized, else four.
    """

    weight_bytes: int
    value_bytes: int


def footprint(network: Network, halves: bool = False) -> Footprint:
    """Estimate the bytes that a network takes.

    Args:
        network: the network.
        halves: whether its float weights take two bytes each.
    """
    bits: dict[str, float] = {}
    rounds_values = False
    for node in network.calls():
        qparams = qparams_of(node)
        if qparams is not None and qparams.source.op == "get_attr":
            bits[qparams.source_name] = qparams.bits
        elif qparams is not None:
            rounds_values = True
        elif node.target in CODE_BITS:
            bits[str(read_by(node).target)] = CODE_BITS[node.target]
    plain = unrounded(network) if bits or rounds_values else network
    weights = 0.0
    read = (node for node in plain.graph.nodes if node.op == "get_attr" and node.users)
    for name in {str(node.target) for node in read}:
        tensor = network.attribute(name)
        if isinstance(tensor, torch.Tensor):
            usual = 16 if halves and tensor.is_floating_point() else 8 * tensor.element_size()
            weights += tensor.numel() * bits.get(name, usual) / 8
    values = peak_activation_bytes(plain)
    return Footprint(round(weights), values // 4 if rounds_values else values)
