"""Plain: operators that exporters lack or get wrong, written in others that they know."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import fx

from penjing.network.network import Network

aten = torch.ops.aten
Shapes = Mapping[str, Any]
"""By the name of a node: a shape, or several."""
Call = Callable[..., fx.Node]
"""(operator, *arguments) to a new node that stands before the one that is rewritten."""


def write_plainly(network: Network, shapes: Mapping[fx.Node, Any]) -> Network:
    """A copy without the operators that `REWRITES` names, where they are not what exporters take;
    the network itself where there is none.

    Args:
        shapes: of the network's values, see `penjing.network.shapes.shapes`.
    """
    by_name = {node.name: shape for node, shape in shapes.items()}
    chosen = {
        node.name
        for node in network.calls()
        if node.target in REWRITES and REWRITES[node.target][0](node, by_name)
    }
    if not chosen:
        return network
    new = copy.deepcopy(network)
    for node in list(new.calls()):
        if node.name in chosen:
            _replace(new.graph, node, by_name)
    new.compile_graph()
    return new


def _replace(graph: fx.Graph, node: fx.Node, shapes: Shapes) -> None:
    with graph.inserting_before(node):

        def call(target: Any, *arguments: Any) -> fx.Node:
            made = graph.call_function(target, arguments)
            made.meta = dict(node.meta)
            return made

        node.replace_all_uses_with(REWRITES[node.target][1](call, node, shapes))
    graph.erase_node(node)


def _of_any_rank(node: fx.Node, shapes: Shapes) -> bool:
    """Exporters take attention in four dimensions only."""
    fused = len(shapes[_input(node, 0).name]) == 4 or any(node.args[4:])
    return not fused and not node.kwargs.get("is_causal")


def _attention(call: Call, node: fx.Node, shapes: Shapes) -> fx.Node:
    query, key, value = node.args[:3]
    mask = node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")
    turned = call(aten.transpose.int, key, -2, -1)
    scale = float(cast(float, node.kwargs["scale"]))  # capture has written it down
    scores = call(aten.mul.Tensor, call(aten.matmul.default, query, turned), scale)
    if mask is not None:
        scores = call(aten.add.Tensor, scores, mask)
    return call(aten.matmul.default, call(aten.softmax.int, scores, -1), value)


def _of_another_shape(node: fx.Node, shapes: Shapes) -> bool:
    """The ONNX exporter forgets to stretch what is copied into a larger tensor."""
    source = node.args[1]
    return isinstance(source, fx.Node) and shapes[source.name] != shapes[_input(node, 0).name]


def _stretched_copy(call: Call, node: fx.Node, shapes: Shapes) -> fx.Node:
    target, source = node.args[:2]
    return call(node.target, target, call(aten.expand_as.default, source, target))


def _euclidean(node: fx.Node, shapes: Shapes) -> bool:
    return bool(node.args[2] == 2)


def _distances(call: Call, node: fx.Node, shapes: Shapes) -> fx.Node:
    a, b = (call(aten.unsqueeze.default, node.args[one], -2 - one) for one in (0, 1))
    return call(aten.linalg_vector_norm.default, call(aten.sub.Tensor, a, b), 2, [-1])


def _always(node: fx.Node, shapes: Shapes) -> bool:
    return True


def _clamp(call: Call, node: fx.Node, shapes: Shapes) -> fx.Node:
    """Its Min and Max become a Clip whose bounds the exporter's optimizer loses."""
    value = _input(node, 0)
    for one, name, outside in ((1, "min", aten.lt.Tensor), (2, "max", aten.gt.Tensor)):
        bound = node.args[one] if len(node.args) > one else node.kwargs.get(name)
        if bound is not None:
            value = call(aten.where.self, call(outside, value, bound), bound, value)
    return value


def _groups_of_the_batch(node: fx.Node, shapes: Shapes) -> bool:
    """Kernels of each sample, as a convolution with batch x groups groups."""
    return len(node.args) > 6 and isinstance(node.args[6], fx.Node)


def _by_columns(call: Call, node: fx.Node, shapes: Shapes) -> fx.Node:
    """x_1(GC)hw, w_(GO)Ckk -> y_1(GO)hw: the windows of the image times the kernels, for each of
    the G groups."""
    x, weight = _input(node, 0), _input(node, 1)
    stride, padding, dilation, groups = node.args[3:7]
    inner, *kernel = shapes[weight.name][1:]
    outer = shapes[weight.name][0] * inner // shapes[x.name][1]
    columns = call(aten.im2col.default, x, kernel, dilation, padding, stride)
    columns = call(aten.reshape.default, columns, [groups, inner * kernel[0] * kernel[1], -1])
    kernels = call(aten.reshape.default, weight, [groups, outer, inner * kernel[0] * kernel[1]])
    product = call(aten.matmul.default, kernels, columns)
    height, width = shapes[node.name][-2:]
    found = call(aten.reshape.default, product, [1, -1, height, width])
    if node.args[2] is not None:
        found = call(aten.add.Tensor, found, call(aten.reshape.default, node.args[2], [-1, 1, 1]))
    return found


def _input(node: fx.Node, position: int) -> fx.Node:
    found = node.args[position]
    assert isinstance(found, fx.Node)
    return found


Needed = Callable[[fx.Node, Shapes], bool]
REWRITES: dict[Any, tuple[Needed, Callable[[Call, fx.Node, Shapes], fx.Node]]] = {
    aten.scaled_dot_product_attention.default: (_of_any_rank, _attention),
    aten.copy_.default: (_of_another_shape, _stretched_copy),
    aten.copy.default: (_of_another_shape, _stretched_copy),
    aten._cdist_forward.default: (_euclidean, _distances),
    aten.clamp.Tensor: (_always, _clamp),
    aten.conv2d.default: (_groups_of_the_batch, _by_columns),
}
"""Operator to (whether it has to be rewritten, what is written instead)."""
