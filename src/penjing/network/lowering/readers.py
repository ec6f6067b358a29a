"""Readers: integers that several operators read, each through a dequantize of its own."""

from __future__ import annotations

from penjing.network.graph.network import Network
from penjing.network.graph.surgery import insert_before
from penjing.network.lowering.integers import DEQUANTIZE


def dequantize_for_each_reader(network: Network) -> None:
    """Give each reader of integers a dequantize of its own, in place."""
    for node in list(network.calls()):
        if node.target is DEQUANTIZE:
            for reader in list(node.users)[1:]:
                copied = insert_before(reader, DEQUANTIZE, *node.args, like=node)
                reader.replace_input_with(node, copied)
    network.compile_graph()
