"""Weights alone, lowered: integers of embeddings and recurrent layers, and how they become real.

An embedding looks up a row of integers and the row's scale, and multiplies them, so a table is
never real as a whole. A recurrent layer gets real matrices: what a runtime computes once when it
loads the file, where it can, and else real numbers in the file.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx

from penjing.arith.quantizer import quantized
from penjing.network.graph.network import Network
from penjing.network.graph.qparams import QParams, alone_qparams
from penjing.network.graph.recurrent import WEIGHTS
from penjing.network.graph.surgery import insert_before, replace
from penjing.network.graph.tensors import insert_tensor
from penjing.network.graph.weights_alone import EMBEDDING
from penjing.network.lowering.form import Form

aten = torch.ops.aten
BY_ROW = torch.ops.quantized_decomposed.dequantize_per_channel.default


def store_alone(network: Network, form: Form) -> None:
    """Replace the rounding of weights of embeddings and recurrent layers, in place."""
    for qparams in alone_qparams(network):
        scales = network.tensor(qparams.scale).detach().cpu()
        weight = network.tensor(qparams.source_name).detach().cpu()
        codes = quantized(weight, scales, qparams.low, qparams.high)
        for reader in list(qparams.node.users):
            if reader.target is EMBEDDING:
                _look_up(network, reader, qparams, codes, scales)
            else:
                _multiply(network, reader, qparams, codes, scales, form)
        network.graph.erase_node(qparams.node)


def _look_up(
    network: Network, reader: fx.Node, qparams: QParams, codes: Tensor, scales: Tensor
) -> None:
    """q_VC[i] s_V1[i] in place of w_VC[i], which is exact."""
    name, places = qparams.source_name, reader.args[1]
    rows, steps = (
        insert_before(reader, EMBEDDING, insert_tensor(network, reader, *stored), places)
        for stored in ((name, codes), (qparams.scale, scales[:, None]))
    )
    real = insert_before(reader, aten.to.dtype, rows, torch.float32)
    replace(reader, insert_before(reader, aten.mul.Tensor, real, steps))


def _multiply(
    network: Network, reader: fx.Node, qparams: QParams, codes: Tensor, scales: Tensor, form: Form
) -> None:
    name = qparams.source_name
    kind = str(reader.target).removeprefix("aten.")
    if kind.startswith(form.recurrence):
        stored = {name: codes, qparams.scale: scales}
        stored[f"{name}_zero_point"] = torch.zeros(len(scales), dtype=torch.int8)
        parts = [insert_tensor(network, reader, *tensor) for tensor in stored.items()]
        real = insert_before(reader, BY_ROW, *parts, 0, -127, 127, torch.int8)
    else:
        real = insert_tensor(network, reader, name, codes * scales[:, None])
    weights = reader.args[WEIGHTS]
    assert isinstance(weights, list | tuple)
    weights = [real if weight is qparams.node else weight for weight in weights]
    reader.update_arg(WEIGHTS, weights)
