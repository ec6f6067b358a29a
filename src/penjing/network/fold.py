"""Before rounding, what integers have kernels for: a batch norm folded into the layer before it, a
mean written as the pool that it is, a SiLU as the product that it is. The same numbers."""

from __future__ import annotations

from typing import cast

import torch
from torch import fx

from penjing.arith.fake_quantize import FAKE_QUANTIZE
from penjing.network.batch_norm import batch_norm_of
from penjing.network.fake_quantized import scales_of
from penjing.network.layers import LAYERS
from penjing.network.network import Network
from penjing.network.tensors import add_bias, drop_unused

aten = torch.ops.aten


def fold_batch_norm(network: Network) -> None:
    """Fold each batch norm into the convolution or linear layer that alone feeds it, in place.

    w' = w g / sqrt(v + eps), b' = (b - m) g / sqrt(v + eps) + beta, for evaluation mode. Of a
    weight that is rounded, the scales take the factor, so that its integers stay the same.
    """
    for node in list(network.graph.nodes):
        producer = node.args[0] if node.target is aten.batch_norm.default else None
        if not isinstance(producer, fx.Node) or len(producer.users) != 1:
            continue
        if producer.target not in LAYERS:
            continue
        weight_node = producer.args[1]
        if not isinstance(weight_node, fx.Node) or len(weight_node.users) != 1:
            continue  # a shared weight can't take two norms
        if weight_node.op != "get_attr" and not scales_of(weight_node):
            continue  # it is computed, or its scale stands behind the layer
        bias = producer.args[2] if len(producer.args) > 2 else None
        if isinstance(bias, fx.Node) and bias.op != "get_attr":
            continue  # it is rounded to the grid of the layer's sums
        if batch_norm_of(network, node) is None:
            continue  # it goes by each batch, in evaluation too
        _fold(network, producer, node)
    drop_unused(network)


def _fold(network: Network, producer: fx.Node, norm: fx.Node) -> None:
    found = batch_norm_of(network, norm)
    assert found is not None
    with torch.no_grad():
        factor = found.gain
        rounded = cast(fx.Node, producer.args[1])
        source = rounded if rounded.op == "get_attr" else cast(fx.Node, rounded.args[0])
        name = str(source.target)
        weight = network.tensor(name)
        shape = (-1, *[1] * (weight.dim() - 1))
        bias_node = producer.args[2] if len(producer.args) > 2 else None
        bias = network.tensor(str(bias_node.target)) if isinstance(bias_node, fx.Node) else 0.0
        shift = (bias - found.mean.double()) * factor + (0.0 if found.beta is None else found.beta)
        for scale in scales_of(rounded):
            old = network.tensor(scale)
            old.copy_(old.double() * factor.view(-1, *[1] * (old.dim() - 1)))
        if rounded is source or rounded.target is FAKE_QUANTIZE:
            weight.copy_(weight.double() * factor.view(shape))
        if isinstance(bias_node, fx.Node):
            network.tensor(str(bias_node.target)).copy_(shift)
        else:
            add_bias(network, producer, name, shift.to(weight.dtype))
    norm.replace_all_uses_with(producer)
    network.graph.erase_node(norm)


def pool_means(network: Network) -> None:
    """Write a mean over the last two of four dimensions as an average pool, in place.

    The same numbers; runtimes have an integer kernel for the pool and none for the mean.
    """
    for node in list(network.graph.nodes):
        if node.target is not aten.mean.dim or not isinstance(node.args[1], list | tuple):
            continue
        if sorted(int(one) % 4 for one in node.args[1]) != [2, 3]:
            continue
        keep = bool(node.args[2]) if len(node.args) > 2 else bool(node.kwargs.get("keepdim"))
        with network.graph.inserting_before(node):
            new = network.graph.call_function(
                aten.adaptive_avg_pool2d.default, (node.args[0], [1, 1])
            )
            new.meta = dict(node.meta)
            if not keep:
                new = network.graph.call_function(aten.flatten.using_ints, (new, 1))
                new.meta = dict(node.meta)
        node.replace_all_uses_with(new)
        network.graph.erase_node(node)


def split_silu(network: Network) -> None:
    """Write silu(x) as x sigmoid(x), in place.

    The same numbers; some runtimes have integer kernels for the parts and none for the whole.
    """
    for node in list(network.graph.nodes):
        if node.target not in (aten.silu.default, aten.silu_.default):
            continue
        with network.graph.inserting_before(node):
            gate = network.graph.call_function(aten.sigmoid.default, node.args[:1])
            new = network.graph.call_function(aten.mul.Tensor, (node.args[0], gate))
        gate.meta, new.meta = dict(node.meta), dict(node.meta)
        node.replace_all_uses_with(new)
        network.graph.erase_node(node)
