"""Quantize and dequantize nodes in the form that ExecuTorch's partitioners expect.

A partitioner takes one operator together with the dequantizes before it and the quantize after it.
So no two operators may share a dequantize.
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
"""Activations that are computed together with the layer before them."""
CLAMP = {aten.clamp.default, aten.clamp_.default}


def fuse_clamps(network: Network) -> None:
    """Replace clamps of values by activations that can be fused, in place.

    Clamps of few-bit integers stay.
    """
    for node in network.calls():
        if node.target in CLAMP and read_by(node).target is not QUANTIZE:
            low, high = argument(node, "min"), argument(node, "max")
            if low == 0 and high is None:
                become(node, aten.relu.default, read_by(node))
            elif low is not None and high is not None:
                become(node, aten.hardtanh.default, read_by(node), low, high)


def separate(network: Network) -> None:
    """Give each operator that reads a dequantize its own one, in place. This is the last step."""
    for node in list(network.calls()):
        for reader in list(node.users)[1:] if node.target is DEQUANTIZE else ():
            own = insert_before(reader, DEQUANTIZE, *node.args, like=node)
            reader.replace_input_with(node, own)
    drop_unused(network)
    network.compile_graph()


def qparams_behind(node: fx.Node) -> tuple[Any, ...] | None:
    """The quantization parameters of a node's output; None if the output isn't quantized."""
    readers = list(node.users)
    rounded = [reader.target for reader in readers] == [QUANTIZE]
    return qparams_arguments(readers[0]) if rounded else None
