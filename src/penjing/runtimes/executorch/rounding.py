"""Quantize and dequantize nodes as ExecuTorch's partitioners read them.

They look at one operator with the dequantizes before it and the quantize behind it, so no two
operators may read one dequantize.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from penjing.network import Network
from penjing.network.graph.arguments import argument, read_by
from penjing.network.graph.surgery import become, insert_before
from penjing.network.graph.tensors import drop_unused
from penjing.network.lowering.integers import DEQUANTIZE, INTEGERS, QUANTIZE, qparams_arguments

aten = torch.ops.aten
BY_CHANNEL = INTEGERS.dequantize_per_channel.default
FUSED = {
    aten.relu.default, aten.relu_.default, aten.relu6.default, aten.relu6_.default,
    aten.hardtanh.default, aten.hardtanh_.default,
}  # fmt: skip
"""What is computed with the layer before it."""
CLAMP = {aten.clamp.default, aten.clamp_.default}


def fuse_clamps(network: Network) -> None:
    """Call a clamp of values what can be fused, in place; that of few-bit codes stays."""
    for node in network.calls():
        if node.target in CLAMP and read_by(node).target is not QUANTIZE:
            low, high = argument(node, "min"), argument(node, "max")
            if low == 0 and high is None:
                become(node, aten.relu.default, read_by(node))
            elif low is not None and high is not None:
                become(node, aten.hardtanh.default, read_by(node), low, high)


def separate(network: Network) -> None:
    """Give each operator that reads a dequantize one of its own, in place, as the last step."""
    for node in list(network.calls()):
        for reader in list(node.users)[1:] if node.target is DEQUANTIZE else ():
            own = insert_before(reader, DEQUANTIZE, *node.args, like=node)
            reader.replace_input_with(node, own)
    drop_unused(network)
    network.compile_graph()


def qparams_behind(node: fx.Node) -> tuple[Any, ...] | None:
    """The grid on which all that a node gives is rounded; None if it isn't."""
    readers = list(node.users)
    rounded = [reader.target for reader in readers] == [QUANTIZE]
    return qparams_arguments(readers[0]) if rounded else None
