"""Choices: values that an operator takes from several tensors, each on a grid of its own."""

from __future__ import annotations

from typing import Any

import torch

from penjing.arith.quantizer import scale_and_zero_point
from penjing.errors import InputError
from penjing.network.graph.arguments import read_by
from penjing.network.graph.network import Network
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
"""By operator that gives values of several tensors, how many arguments come before these."""
MOVES = {
    aten.flatten.using_ints, aten.reshape.default, aten.view.default, aten.permute.default,
    aten.transpose.int, aten.slice.Tensor, aten.select.int, aten.squeeze.dim,
    aten.unsqueeze.default, aten.expand.default, aten.max_pool2d.default, aten.dropout.default,
}  # fmt: skip


def round_choices(network: Network, form: Form) -> None:
    """Round what an operator chooses from values on several grids to one that reaches as far as all
    of theirs, in place, where it isn't rounded already.

    A converter may compute it on integers whatever the network says, by the grid of one of them.

    Raises:
        InputError: it is a stack, behind which the converter doesn't see a rounding.
    """
    for node in list(network.calls()):
        if node.target not in CHOOSES or any(reader.target is QUANTIZE for reader in node.users):
            continue
        values = torch.utils._pytree.tree_leaves(node.args[CHOOSES[node.target] :])
        grids = {_qparams_of(value) for value in values if isinstance(value, torch.fx.Node)}
        if len(grids) < 2 or None in grids:
            continue
        if node.target is aten.stack.default:
            raise InputError(
                f"the converter would round all that is stacked at {node.name} to the grid "
                "of the first; use torch.cat, or leave layers before it in float (Quantize skip)"
            )
        ends = [scale * (end - zero) for scale, zero, *both, _ in grids for end in both]  # type: ignore[misc]
        scale, zero = scale_and_zero_point(min(ends), max(ends))
        for reader in list(node.users):
            round_between(node, reader, (scale, zero + form.ends[0], *form.ends))
    network.compile_graph()


def _qparams_of(node: torch.fx.Node) -> tuple[Any, ...] | None:
    """The grid on which a value is rounded, behind whatever only moves it; None if it isn't."""
    while node.target in MOVES:
        node = read_by(node)
    return qparams_arguments(node) if node.target is DEQUANTIZE else None
