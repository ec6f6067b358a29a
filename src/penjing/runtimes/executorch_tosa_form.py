"""The form in which TOSA, through which ExecuTorch reaches Arm's NPUs, takes all of a network.

Its operators compute integers with a grid at either end, but for layers, which take their
activation along. What only moves or averages values has to keep its grid, so an average with a grid
of its own is a layer before this. No number changes here.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import fx

from penjing.network import Network
from penjing.network.layers import LAYERS
from penjing.network.tensors import drop_unused
from penjing.runtimes.executorch_rounding import (
    BY_CHANNEL,
    DEQUANTIZE,
    FUSED,
    QUANTIZE,
    for_each_reader,
    fuse_clamps,
    grid_behind,
    on_one_grid,
    round_between,
)

aten = torch.ops.aten
ROUNDING = {QUANTIZE, DEQUANTIZE, BY_CHANNEL}
COMPOSED = {aten.scaled_dot_product_attention.default, aten.layer_norm.default, aten.softmax.int}
"""What falls apart into operators that nothing rounds between."""


def for_tosa(network: Network) -> Network:
    """A copy that computes the same numbers in operators that TOSA's partitioner takes.

    Args:
        network: with quantize and dequantize nodes where it has integers, and with layers for what
            changes the grid (`penjing.network.as_convolutions.write_as_layers`).
    """
    new = copy.deepcopy(network)
    fuse_clamps(new)
    for node in list(new.calls()):
        if node.target is aten.cat.default:
            on_one_grid(node)
        elif node.target in FUSED:
            _round_before(node)
    for node in list(new.calls()):
        if node.target is DEQUANTIZE:
            for_each_reader(node)
    drop_unused(new)
    new.compile_graph()
    return new


def rounded_at_both_ends(node: fx.Node) -> bool:
    """Whether an operator reads rounded values alone and what it gives is rounded, or does so with
    the layer or the activation beside it."""
    if node.op != "call_function" or node.target in ROUNDING | COMPOSED:
        return False
    reads = all(one.target in ROUNDING or _is_inside(one) for one in node.all_input_nodes)
    return reads and (grid_behind(node) is not None or _is_inside(node))


def _is_inside(node: fx.Node) -> bool:
    """Whether this is a layer whose activation is computed with it."""
    readers = list(node.users)
    return node.target in LAYERS and len(readers) == 1 and readers[0].target in FUSED


def _round_before(node: fx.Node) -> None:
    """Round what an activation reads to the grid of what it gives, if that isn't a layer's.

    With 0 on the grid, rounding and clipping may change places.
    """
    source, grid = cast(fx.Node, node.args[0]), grid_behind(node)
    bare = source.target not in LAYERS | ROUNDING and len(source.users) == 1
    if bare and grid is not None:
        round_between(source, node, grid)
