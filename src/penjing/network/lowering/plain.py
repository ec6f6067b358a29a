"""Plain: rewrite operators that exporters lack or get wrong in terms of others."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from penjing.network.graph.arguments import argument, read_by
from penjing.network.graph.layers import Layer
from penjing.network.graph.network import Network
from penjing.network.graph.surgery import insert_before, replace

aten = torch.ops.aten
Shapes = Mapping[str, Any]
"""By name of a node, its shape, or the shapes of its results."""
Call = Callable[..., fx.Node]
"""(operator, *arguments) to a new node in front of the one that is being rewritten."""


def write_plainly(network: Network, shapes: Mapping[fx.Node, Any]) -> Network:
    """A copy in which the operators of `REWRITES` are rewritten where exporters need it.

    If no operator needs it, the network itself is returned.

    Args:
        network: the network.
        shapes: the shapes of its values; see `penjing.network.graph.shapes.shapes`.
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
            call = functools.partial(insert_before, node)
            replace(node, REWRITES[node.target][1](call, node, by_name))
    new.compile_graph()
    return new


def _of_any_rank(node: fx.Node, shapes: Shapes) -> bool:
    """Exporters support attention in four dimensions only."""
    fused = len(shapes[read_by(node).name]) == 4 or argument(node, "dropout_p")
    return not fused and not argument(node, "is_causal")


def _attention(call: Call, node: fx.Node, shapes: Shapes) -> fx.Node:
    query, key, value, mask = (
        argument(node, name) for name in ("query", "key", "value", "attn_mask")
    )
    turned = call(aten.transpose.int, key, -2, -1)
    scale = float(argument(node, "scale"))  # `capture` has written it out
    scores = call(aten.mul.Tensor, call(aten.matmul.default, query, turned), scale)
    if mask is not None:
        scores = call(aten.add.Tensor, scores, mask)
    return call(aten.matmul.default, call(aten.softmax.int, scores, -1), value)


def _of_another_shape(node: fx.Node, shapes: Shapes) -> bool:
    """The ONNX exporter doesn't broadcast a value that is copied into a larger tensor."""
    return bool(shapes[argument(node, "src").name] != shapes[read_by(node).name])


def _stretched_copy(call: Call, node: fx.Node, shapes: Shapes) -> fx.Node:
    target = read_by(node)
    source = call(aten.expand_as.default, argument(node, "src"), target)
    return call(node.target, target, source)


def _euclidean(node: fx.Node, shapes: Shapes) -> bool:
    return bool(argument(node, "p") == 2)


def _distances(call: Call, node: fx.Node, shapes: Shapes) -> fx.Node:
    a = call(aten.unsqueeze.default, argument(node, "x1"), -2)
    b = call(aten.unsqueeze.default, argument(node, "x2"), -3)
    return call(aten.linalg_vector_norm.default, call(aten.sub.Tensor, a, b), 2, [-1])


def _always(node: fx.Node, shapes: Shapes) -> bool:
    return True


def _clamp(call: Call, node: fx.Node, shapes: Shapes) -> fx.Node:
    """The exporter's optimizer turns Min and Max into a Clip, and loses its bounds."""
    value = read_by(node)
    for name, outside in (("min", aten.lt.Tensor), ("max", aten.gt.Tensor)):
        bound = argument(node, name)
        if bound is not None:
            value = call(aten.where.self, call(outside, value, bound), bound, value)
    return value


def _groups_of_the_batch(node: fx.Node, shapes: Shapes) -> bool:
    """Kernels for each sample, as a convolution with batch x groups groups."""
    return isinstance(argument(node, "groups"), fx.Node)


def _by_columns(call: Call, node: fx.Node, shapes: Shapes) -> fx.Node:
    """x_1(GC)hw, w_(GO)Ckk -> y_1(GO)hw: for each of G groups, windows times kernels."""
    layer, groups = Layer(node), argument(node, "groups")
    x, weight = layer.data, layer.weight
    inner, *kernel = shapes[weight.name][1:]
    outer = shapes[weight.name][0] * inner // shapes[x.name][1]
    windows = (kernel, layer.dilation, layer.padding, layer.stride)
    columns = call(aten.im2col.default, x, *windows)
    columns = call(aten.reshape.default, columns, [groups, inner * kernel[0] * kernel[1], -1])
    kernels = call(aten.reshape.default, weight, [groups, outer, inner * kernel[0] * kernel[1]])
    product = call(aten.matmul.default, kernels, columns)
    height, width = shapes[node.name][-2:]
    result = call(aten.reshape.default, product, [1, -1, height, width])
    if layer.bias is not None:
        result = call(aten.add.Tensor, result, call(aten.reshape.default, layer.bias, [-1, 1, 1]))
    return result


Needed = Callable[[fx.Node, Shapes], bool]
REWRITES: dict[Any, tuple[Needed, Callable[[Call, fx.Node, Shapes], fx.Node]]] = {
    aten.scaled_dot_product_attention.default: (_of_any_rank, _attention),
    aten.copy_.default: (_of_another_shape, _stretched_copy),
    aten.copy.default: (_of_another_shape, _stretched_copy),
    aten._cdist_forward.default: (_euclidean, _distances),
    aten.clamp.Tensor: (_always, _clamp),
    aten.conv2d.default: (_groups_of_the_batch, _by_columns),
}
"""By operator, whether it has to be rewritten, and the function that does so."""
