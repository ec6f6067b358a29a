"""Fold: rewrite a network, before it is quantized, into operators that have integer kernels.

A batch norm is folded into the layer before it, a mean becomes a pool, and a SiLU becomes a
product. The network still computes the same numbers.
"""

from __future__ import annotations

import torch
from torch import fx

from penjing.arith.fake_quantize import FAKE_QUANTIZE
from penjing.network.graph.arguments import argument, read_by
from penjing.network.graph.batch_norm import batch_norm_of
from penjing.network.graph.layers import LAYERS, Layer
from penjing.network.graph.network import Network
from penjing.network.graph.qparams import scales_of
from penjing.network.graph.surgery import insert_before, replace
from penjing.network.graph.tensors import add_bias, drop_unused

aten = torch.ops.aten


def fold_batch_norm(network: Network) -> None:
    """Fold each batch norm into the convolution or linear layer in front of it, in place.

    With the norm's weight g, bias beta, mean m and variance v, the layer gets
    w' = w g / sqrt(v + eps) and b' = (b - m) g / sqrt(v + eps) + beta. The scales of a quantized
    weight take the factor, so its integers stay the same. The norm must be the layer's only reader.
    """
    for node in list(network.graph.nodes):
        if node.target is not aten.batch_norm.default:
            continue
        producer = read_by(node)
        if len(producer.users) != 1 or producer.target not in LAYERS:
            continue
        layer = Layer(producer)
        if len(layer.weight.users) != 1:
            continue  # a shared weight can't take two norms
        if layer.weight.op != "get_attr" and not scales_of(layer.weight):
            continue  # the weight is computed, or its scale is applied behind the layer
        if layer.bias is not None and layer.bias.op != "get_attr":
            continue  # the bias is rounded to the scale of the layer's sums
        if batch_norm_of(network, node) is None:
            continue  # the norm uses the statistics of each batch, in evaluation too
        _fold(network, layer, node)
    drop_unused(network)


def _fold(network: Network, layer: Layer, norm: fx.Node) -> None:
    batch_norm = batch_norm_of(network, norm)
    assert batch_norm is not None
    with torch.no_grad():
        factor = batch_norm.gain
        rounded, bias_node = layer.weight, layer.bias
        source = rounded if rounded.op == "get_attr" else read_by(rounded)
        name = str(source.target)
        weight = network.tensor(name)
        shape = (-1, *[1] * (weight.dim() - 1))
        bias = 0.0 if bias_node is None else network.tensor(str(bias_node.target))
        shift = (bias - batch_norm.mean.double()) * factor + (
            0.0 if batch_norm.beta is None else batch_norm.beta
        )
        for scale in scales_of(rounded):
            old = network.tensor(scale)
            old.copy_(old.double() * factor.view(-1, *[1] * (old.dim() - 1)))
        if rounded is source or rounded.target is FAKE_QUANTIZE:
            weight.copy_(weight.double() * factor.view(shape))
        if bias_node is not None:
            network.tensor(str(bias_node.target)).copy_(shift)
        else:
            add_bias(network, layer.node, name, shift.to(weight.dtype))
    replace(norm, layer.node)


def pool_means(network: Network) -> None:
    """Replace a mean over the last two of four dimensions by an average pool, in place.

    The pool computes the same numbers, and runtimes have an integer kernel for it.
    """
    for node in list(network.graph.nodes):
        over = argument(node, "dim") if node.target is aten.mean.dim else None
        if sorted(int(axis) % 4 for axis in over or ()) != [2, 3]:
            continue
        new = insert_before(node, aten.adaptive_avg_pool2d.default, read_by(node), [1, 1])
        if not argument(node, "keepdim"):
            new = insert_before(node, aten.flatten.using_ints, new, 1)
        replace(node, new)


def split_silu(network: Network) -> None:
    """Replace silu(x) by x sigmoid(x), in place.

    The product is the same number, and some runtimes have integer kernels only for its parts.
    """
    for node in list(network.graph.nodes):
        if node.target not in (aten.silu.default, aten.silu_.default):
            continue
        gate = insert_before(node, aten.sigmoid.default, read_by(node))
        replace(node, insert_before(node, aten.mul.Tensor, read_by(node), gate))
