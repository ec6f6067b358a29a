"""Choices: quantize operators that select from tensors with different quantization parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from penjing.arith.quantizer import scale_and_zero_point
from penjing.errors import InputError
from penjing.network.graph.arguments import argument, read_by
from penjing.network.graph.network import Network
from penjing.network.graph.shapes import shapes
from penjing.network.graph.surgery import insert_before, replace
from penjing.network.lowering.form import Form
from penjing.network.lowering.integers import (
    DEQUANTIZE,
    QUANTIZE,
    qparams_arguments,
    round_between,
)

aten = torch.ops.aten
CHOOSES = {
    aten.cat.default: 0, aten.stack.default: 0, aten.minimum.default: 0, aten.maximum.default: 0,
    aten.where.self: 1,
}  # fmt: skip
"""By operator that selects values from several tensors, the number of arguments before these."""
MOVES = {
    aten.flatten.using_ints, aten.reshape.default, aten.view.default, aten.permute.default,
    aten.transpose.int, aten.slice.Tensor, aten.select.int, aten.squeeze.dim,
    aten.unsqueeze.default, aten.expand.default, aten.max_pool2d.default, aten.dropout.default,
}  # fmt: skip


def round_choices(network: Network, form: Form) -> None:
    """Quantize the output of operators that select from differently quantized values, in place.

    The output gets a range that covers the ranges of all inputs. Without this, a converter may
    compute the operator on integers with the quantization parameters of a single input. Outputs
    that are quantized already stay as they are.

    A concatenation of quantized and real values becomes a sum of padded ones: the converter would
    round the real ones with the quantization parameters of another part.

    Raises:
        InputError: the operator is a `stack`, for which the converter ignores the quantization.
    """
    for node in list(network.calls()):
        if node.target not in CHOOSES or any(reader.target is QUANTIZE for reader in node.users):
            continue
        values = torch.utils._pytree.tree_leaves(node.args[CHOOSES[node.target] :])
        values = [value for value in values if isinstance(value, torch.fx.Node)]
        every = {_qparams_of(value) for value in values}
        qparams = [parameters for parameters in every if parameters is not None]
        if qparams and None in every and node.target is aten.cat.default:
            _write_as_sum(node, values, shapes(network))
        if len(qparams) < 2 or None in every:
            continue
        if node.target is aten.stack.default:
            where = node.meta.get("source") or node.name
            raise InputError(
                f"the converter would quantize everything that is stacked at {where} with the "
                "scale of the first tensor; use torch.cat, or leave the layers before it in float "
                "with the option skip of Quantize"
            )
        ends = [scale * (end - zero) for scale, zero, *both, _ in qparams for end in both]
        scale, zero = scale_and_zero_point(min(ends), max(ends))
        for reader in list(node.users):
            round_between(node, reader, (scale, zero + form.ends[0], *form.ends))
    network.compile_graph()


def _write_as_sum(node: torch.fx.Node, parts: Sequence[Any], known: Mapping[Any, Any]) -> None:
    """Write a concatenation as the sum of its parts, each with zeros where the others are."""
    dim, dims = int(argument(node, "dim")) % len(known[node]), len(known[node])
    sizes = [int(known[part][dim]) for part in parts]
    padded = []
    for place, part in enumerate(parts):
        sides = [0, 0] * (dims - 1 - dim) + [sum(sizes[:place]), sum(sizes[place + 1 :])]
        padded.append(insert_before(node, aten.pad.default, part, sides, "constant", 0.0))
    total = padded[0]
    for part in padded[1:]:
        total = insert_before(node, aten.add.Tensor, total, part)
    replace(node, total)


def _qparams_of(node: torch.fx.Node) -> tuple[Any, ...] | None:
    """The quantization parameters of a value, behind operators that only move it; None if none."""
    while node.target in MOVES:
        node = read_by(node)
    return qparams_arguments(node) if node.target is DEQUANTIZE else None
