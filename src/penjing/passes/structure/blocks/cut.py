"""Cut a block out of a network."""

from __future__ import annotations

from penjing.network import Network
from penjing.network.analysis.blocks import Block
from penjing.network.edits.bypass import cut_out
from penjing.network.edits.fuse import fuse
from penjing.network.edits.leave_out import leave_out


def cut_block(network: Network, block: Block, by_map: bool) -> None:
    """Cut a block out of a network, in place."""
    if block.kind == "part":
        leave_out(network, [block.end])
        return
    if block.kind != "activation":
        cut_out(network, {block.end: block.start}, [block.end] if by_map else [])
        return
    nodes = {node.name: node for node in network.graph.nodes}
    cut_out(network, {name: nodes[name].all_input_nodes[0].name for name in block.functions}, [])
    fuse(network, {block.end: block.start}, True)
