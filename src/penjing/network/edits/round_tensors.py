"""Round tensors: edits that quantize the weights of embeddings and recurrent layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from penjing.arith.fake_quantize import FAKE_QUANTIZE
from penjing.network.graph.network import Network
from penjing.network.graph.surgery import divert, insert_after
from penjing.network.graph.tensors import set_parameter
from penjing.network.graph.weights_alone import weights_alone


def round_tensors(network: Network, tensors: Mapping[str, Mapping[str, Any]]) -> None:
    """Quantize tensors that embeddings and recurrent layers read, in place.

    Args:
        network: the network.
        tensors: by name, `{"scales", "low", "high"}`, with one scale for each row.
    """
    nodes = weights_alone(network)
    for name, qparams in tensors.items():
        scale = f"{name}_scale"
        set_parameter(network, scale, torch.tensor(qparams["scales"], dtype=torch.float32))
        low, high = int(qparams["low"]), int(qparams["high"])
        for node in nodes[name]:
            step = insert_after(node, scale)
            divert(node, insert_after(step, FAKE_QUANTIZE, node, step, 0, low, high))
