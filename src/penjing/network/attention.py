"""Attention spelled out, for exporters that take the fused operator in four dimensions only."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import fx

from penjing.network.network import Network

aten = torch.ops.aten
ATTENTION = aten.scaled_dot_product_attention.default


def spell_out_attention(network: Network, shapes: Mapping[fx.Node, Any]) -> Network:
    """A copy in which attention over more or fewer than four dimensions is products and a softmax;
    the network itself where there is none.

    Args:
        shapes: of the network's values, see `penjing.network.shapes.shapes`.
    """
    names = {
        node.name
        for node in network.calls()
        if node.target is ATTENTION
        and len(shapes[cast(fx.Node, node.args[0])]) != 4
        and not any(node.args[4:])
        and not node.kwargs.get("is_causal")
    }
    if not names:
        return network
    new = copy.deepcopy(network)
    for node in list(new.calls()):
        if node.name in names:
            _replace(new.graph, node)
    new.compile_graph()
    return new


def _replace(graph: fx.Graph, node: fx.Node) -> None:
    query, key, value = node.args[:3]
    mask = node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")
    with graph.inserting_before(node):

        def call(target: Any, *arguments: Any) -> fx.Node:
            made = graph.call_function(target, arguments)
            made.meta = dict(node.meta)
            return made

        turned = call(aten.transpose.int, key, -2, -1)
        scores = call(aten.mul.Tensor, call(aten.matmul.default, query, turned), _scale(node))
        if mask is not None:
            scores = call(aten.add.Tensor, scores, mask)
        weights = call(aten.softmax.int, scores, -1)
        node.replace_all_uses_with(call(aten.matmul.default, weights, value))
    graph.erase_node(node)


def _scale(node: fx.Node) -> float:
    """Capture has written it down."""
    return float(cast(float, node.kwargs["scale"]))
