"""Integers: turn a fake-quantized network into one with quantize and dequantize nodes."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed
from torch import Tensor, fx

from penjing.arith.binary import BINARIZE, SIGN, signs
from penjing.arith.fake_quantize import FAKE_QUANTIZE
from penjing.arith.quantizer import COARSER, quantized, quantized_bias
from penjing.arith.ternary import TERNARIZE, ternary_codes
from penjing.network.edits.fold import fold_batch_norm
from penjing.network.graph.arguments import argument, read_by, set_argument
from penjing.network.graph.layers import Layer, layers_of
from penjing.network.graph.network import Network
from penjing.network.graph.qparams import QParams, qparams_in, qparams_of, scales_of, weight_qparams
from penjing.network.graph.surgery import erase, insert_before, replace
from penjing.network.graph.tensors import drop_unused, insert_tensor, set_tensor
from penjing.network.lowering.form import UNSIGNED, Form
from penjing.network.lowering.weights_alone import store_alone

aten = torch.ops.aten
INTEGERS = torch.ops.quantized_decomposed
QUANTIZE = INTEGERS.quantize_per_tensor.default
DEQUANTIZE = INTEGERS.dequantize_per_tensor.default
ROUNDING = {FAKE_QUANTIZE, TERNARIZE, BINARIZE, SIGN}


def with_integers(network: Network, form: Form = UNSIGNED) -> Network:
    """A copy whose quantized weights and activations are eight-bit integers.

    The copy computes the same numbers, but for values of 16 bits: those have eight there, and a
    scale that is `COARSER` times as large. Integers of fewer bits are stored in eight and clamped
    to their range. If the input of a layer is quantized, its bias becomes int32 with the scale of
    the layer's sums. Ternary and binary weights become int8, and signs become comparisons. If
    nothing is quantized, the network itself is returned.
    """
    if not any(node.target in ROUNDING for node in network.calls()):
        return network
    new = copy.deepcopy(network)
    if any(node.target is TERNARIZE for node in new.calls()):
        fold_batch_norm(new)
    scales = {qparams.node: new.tensor(qparams.scale).detach().cpu() for qparams in qparams_in(new)}
    of_weights = weight_qparams(new)
    for layer in layers_of(new):
        data, bias = qparams_of(Layer(layer).data), Layer(layer).bias
        if layer in of_weights:
            qparams = of_weights[layer]
            step: Tensor | None = scales[qparams.node]
            _weight(new, layer, qparams, scales[qparams.node], form)
        else:
            step = _sub_integers(new, layer, form)
        if data is not None and bias is not None and bias.target is FAKE_QUANTIZE:
            assert step is not None
            _bias(new, layer, bias, step * scales[data.node], form)
    for node in list(new.calls()):
        if node.target is SIGN:
            _compare(node)
    if not form.joins:
        _leave_joins_unrounded(new)
    store_alone(new, form)
    for qparams in list(qparams_in(new)):
        _value(qparams, float(scales[qparams.node]), form)
    drop_unused(new)
    new.compile_graph()
    return new


def round_between(node: fx.Node, reader: fx.Node, qparams: tuple[Any, ...]) -> None:
    """Quantize what `reader` reads from `node`; `qparams` are the arguments of `QUANTIZE`."""
    codes = insert_before(reader, QUANTIZE, node, *qparams, like=node)
    reader.replace_input_with(node, insert_before(reader, DEQUANTIZE, codes, *qparams, like=node))


def qparams_arguments(node: fx.Node) -> tuple[Any, ...]:
    """The arguments of a quantize or dequantize after the value: scale, zero point, ends, type."""
    return node.args[1:]


def _leave_joins_unrounded(network: Network) -> None:
    """Remove the rounding of each concatenation whose parts have its quantization parameters."""
    on: dict[fx.Node, tuple[str, tuple[int, int, int]] | None] = {}
    for node in list(network.calls()):
        qparams = qparams_of(node)
        if node.target is aten.cat.default:
            first, *others = (on.get(part) for part in node.all_input_nodes)
            on[node] = first if others.count(first) == len(others) else None
        elif qparams:
            on[node] = (qparams.scale, qparams.integers)
            if qparams.source.target is aten.cat.default and on[qparams.source] == on[node]:
                replace(node, qparams.source)


def _value(qparams: QParams, scale: float, form: Form) -> None:
    ends = form.ends
    zero, low, high = (integer + ends[0] for integer in qparams.integers)
    if qparams.is_wide:
        scale, zero, low, high = scale * COARSER, 0, *ends[:2]
    codes = insert_before(qparams.node, QUANTIZE, qparams.source, scale, zero, *ends)
    if (low, high) != ends[:2]:
        codes = insert_before(qparams.node, aten.clamp.default, codes, low, high)
    replace(qparams.node, insert_before(qparams.node, DEQUANTIZE, codes, scale, zero, *ends))


def _weight(network: Network, layer: fx.Node, qparams: QParams, scales: Tensor, form: Form) -> None:
    name = qparams.source_name
    codes = quantized(network.tensor(name).detach().cpu(), scales, qparams.low, qparams.high)
    if scales.dim() > 1:
        _dequantized_by_group(network, layer, name, codes, scales)
    elif form.codes:
        _dequantized(network, layer, "weight", name, codes, scales)
    else:
        real = _times(codes, scales)  # the sign of a negative scale goes into the numbers
        _dequantized(network, layer, "weight", name, real, scales.abs())
    network.graph.erase_node(qparams.node)


def _sub_integers(network: Network, layer: fx.Node, form: Form) -> Tensor | None:
    """Store ternary or binary weights as int8; returns the scale if there is one per channel."""
    rounded = Layer(layer).weight
    if rounded.target not in (TERNARIZE, BINARIZE):
        return None
    name = str(read_by(rounded).target)
    weight = network.tensor(name).detach().cpu()
    if rounded.target is TERNARIZE:
        codes = ternary_codes(weight, argument(rounded, "threshold")).to(torch.int8)
    else:
        codes = signs(weight).to(torch.int8)
    names = scales_of(rounded)
    scales = [network.tensor(scale).detach().cpu() for scale in names]
    if len(scales) == 1:
        numbers = codes if form.codes else _times(codes, scales[0])
        _dequantized(network, layer, "weight", name, numbers, scales[0])
    else:
        value = _unscaled(network, layer, name, codes, form)
        value = _by_sign(network, layer, value, names, codes.dim()) if names else value
        set_argument(layer, "weight", value)
    network.graph.erase_node(rounded)
    return scales[0] if len(scales) == 1 else None


def _unscaled(network: Network, layer: fx.Node, name: str, codes: Tensor, form: Form) -> fx.Node:
    if not form.codes:
        return insert_tensor(network, layer, name, codes.to(torch.get_default_dtype()))
    node = insert_tensor(network, layer, name, codes)
    return insert_before(layer, DEQUANTIZE, node, 1.0, 0, -127, 127, torch.int8)


def _by_sign(
    network: Network, layer: fx.Node, codes: fx.Node, names: list[str], dims: int
) -> fx.Node:
    """positive max(c, 0) + negative min(c, 0), which is exact."""
    scales = (network.tensor(name).detach().view(-1, *[1] * (dims - 1)) for name in names)
    positive, negative = (
        insert_tensor(network, layer, name, scale)
        for name, scale in zip(names, scales, strict=True)
    )
    above = insert_before(layer, aten.relu.default, codes)
    below = insert_before(layer, aten.sub.Tensor, codes, above)
    above = insert_before(layer, aten.mul.Tensor, above, positive)
    below = insert_before(layer, aten.mul.Tensor, below, negative)
    return insert_before(layer, aten.add.Tensor, above, below)


def _compare(node: fx.Node) -> None:
    """Rewrite a sign as 1 where the value is 0 or more, and -1 elsewhere."""
    condition = insert_before(node, aten.ge.Scalar, read_by(node), 0)
    replace(node, insert_before(node, aten.where.Scalar, condition, 1.0, -1.0))


def _bias(network: Network, layer: fx.Node, rounded: fx.Node, scales: Tensor, form: Form) -> None:
    source = read_by(rounded)
    name = str(source.target)
    codes = quantized_bias(network.tensor(name).detach().cpu(), scales)
    if form.codes and form.biases:
        _dequantized(network, layer, "bias", name, codes, scales)
    else:
        set_argument(layer, "bias", source)
        set_tensor(network, name, _times(codes, scales).to(network.device))
    erase(rounded)


def _times(codes: Tensor, scales: Tensor) -> Tensor:
    """The real numbers that codes stand for."""
    return codes * scales.view(-1, *[1] * (codes.dim() - 1))


def _dequantized(
    network: Network, layer: fx.Node, what: str, name: str, numbers: Tensor, scales: Tensor
) -> None:
    """Give a layer, as its weight or bias, numbers with a dequantize behind them.

    Integers are stored as they are. Real numbers get a quantize in front of the dequantize.
    """
    real = numbers.is_floating_point()
    kind = torch.int8 if real else numbers.dtype
    ends = (-torch.iinfo(kind).max, torch.iinfo(kind).max, kind)
    zeros = torch.zeros(len(scales), dtype=torch.int64 if real else kind)
    parts = {"": numbers, "_scale": scales, "_zero_point": zeros}
    value, *qparams = (
        insert_tensor(network, layer, name + end, tensor) for end, tensor in parts.items()
    )
    if real:
        value = insert_before(
            layer, INTEGERS.quantize_per_channel.default, value, *qparams, 0, *ends
        )
    value = insert_before(layer, INTEGERS.dequantize_per_channel.default, value, *qparams, 0, *ends)
    set_argument(layer, what, value)


def _dequantized_by_group(
    network: Network, layer: fx.Node, name: str, codes: Tensor, scales: Tensor
) -> None:
    parts = {
        "": codes,
        "_scale": scales,
        "_zero_point": torch.zeros_like(scales, dtype=torch.int32),
    }
    width = codes[0].numel() // scales.shape[1]
    nodes = [insert_tensor(network, layer, name + end, tensor) for end, tensor in parts.items()]
    operator = INTEGERS.dequantize_per_channel_group.default
    ends = (-127, 127, torch.int8, width, torch.float32)
    set_argument(layer, "weight", insert_before(layer, operator, *nodes, *ends))
