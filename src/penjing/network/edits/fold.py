"""Before rounding, what integers have kernels for: a batch norm folded into the layer before it, a
mean written as the pool that it is, a SiLU as the product that it is. The same numbers."""

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
    """Fold each batch norm into the convolution or linear layer that alone feeds it, in place.

    w' = w g / sqrt(v + eps), b' = (b - m) g / sqrt(v + eps) + beta, for evaluation mode. Of a
    weight that is rounded, the scales take the factor, so that its integers stay the same.
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
            continue  # it is computed, or its scale stands behind the layer
        if layer.bias is not None and layer.bias.op != "get_attr":
            continue  # it is rounded to the grid of the layer's sums
        if batch_norm_of(network, node) is None:
            continue  # it goes by each batch, in evaluation too
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
    """Write a mean over the last two of four dimensions as an average pool, in place.

    The same numbers; runtimes have an integer kernel for the pool and none for the mean.
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
    """Write silu(x) as x sigmoid(x), in place.

    The same numbers; some runtimes have integer kernels for the parts and none for the whole.
    """
    for node in list(network.graph.nodes):
        if node.target not in (aten.silu.default, aten.silu_.default):
            continue
        gate = insert_before(node, aten.sigmoid.default, read_by(node))
        replace(node, insert_before(node, aten.mul.Tensor, read_by(node), gate))
