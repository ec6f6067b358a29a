"""Quantize and dequantize nodes as ExecuTorch's partitioners read them.

They look at one operator with the dequantizes before it and the quantize behind it, so no two
operators may read one dequantize.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import fx

from penjing.network import Network
from penjing.network.integers import DEQUANTIZE, INTEGERS, QUANTIZE
from penjing.network.tensors import drop_unused
from penjing.network.trace import argument

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
        if node.target in CLAMP and cast(fx.Node, node.args[0]).target is not QUANTIZE:
            low, high = argument(node, "min"), argument(node, "max")
            if low == 0 and high is None:
                node.target, node.args, node.kwargs = aten.relu.default, node.args[:1], {}
            elif low is not None and high is not None:
                node.target, node.kwargs = aten.hardtanh.default, {}
                node.args = (node.args[0], low, high)


def separate(network: Network) -> None:
    """Give each operator that reads a dequantize one of its own, in place, as the last step."""
    for node in list(network.calls()):
        for reader in list(node.users)[1:] if node.target is DEQUANTIZE else ():
            with node.graph.inserting_before(reader):
                own = node.graph.call_function(DEQUANTIZE, node.args)
            own.meta = dict(node.meta)
            reader.replace_input_with(node, own)
    drop_unused(network)
    network.compile_graph()


def grid_behind(node: fx.Node) -> tuple[Any, ...] | None:
    """The grid on which all that a node gives is rounded; None if it isn't."""
    readers = list(node.users)
    return readers[0].args[1:] if [one.target for one in readers] == [QUANTIZE] else None
