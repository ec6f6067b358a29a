"""Softmax: keep it real where integers around it would make a runtime's kernel refuse it."""

from __future__ import annotations

import torch

from penjing.network.graph.arguments import argument, read_by
from penjing.network.graph.network import Network
from penjing.network.graph.surgery import insert_before, replace
from penjing.network.lowering.integers import QUANTIZE

aten = torch.ops.aten
SCALE = 1 / 256
"""The only scale that LiteRT's kernel for eight bits has, with the smallest integer for 0."""


def keep_softmax_real(network: Network) -> None:
    """Write softmax(x) as exp(log_softmax(x)) if its result has another scale, in place.

    The converter makes an integer kernel of what stands between a dequantize and a quantize. It
    takes any scale, and then the file can't be loaded. Two operators are computed on real numbers,
    and give the same.
    """
    changed = False
    for node in list(network.calls()):
        if node.target is not aten.softmax.int:
            continue
        readers = [reader for reader in node.users if reader.target is QUANTIZE]
        if all(reader.args[1:3] == (SCALE, reader.args[3]) for reader in readers):
            continue
        dim = argument(node, "dim")
        logarithm = insert_before(node, aten.log_softmax.int, read_by(node), dim)
        replace(node, insert_before(node, aten.exp.default, logarithm))
        changed = True
    if changed:
        network.compile_graph()
