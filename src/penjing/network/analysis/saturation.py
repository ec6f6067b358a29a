"""Saturation: find the integer layers that may exceed 16 bits on x86 processors without VNNI.

`penjing.arith.saturation` explains the problem, and `penjing.network.edits.overflow` solves it.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, fx

from penjing.arith.quantizer import quantized
from penjing.arith.saturation import saturates
from penjing.contract import Saturating
from penjing.network.graph.layers import Layer
from penjing.network.graph.network import Network
from penjing.network.graph.qparams import QParams, qparams_of, weight_qparams


def saturating(network: Network) -> list[Saturating]:
    """The layers that may exceed 16 bits, in order. An empty list proves that none can."""
    layers = []
    for layer, qparams, top in integer_layers(network):
        over = saturates(_codes(network, qparams), top)
        if bool(over.any()):
            layers.append(Saturating(str(layer.meta["layer"]), int(over.sum()), len(over)))
    return layers


def is_depthwise(channels: int, groups: int, inputs_a_group: int) -> bool:
    """Whether each output channel of a convolution reads a single input channel.

    Such a convolution adds products along a window and not along channels. The kernels of ONNX
    Runtime and OpenVINO do that in 32 bits on every x86 processor
    (`tests/network/analysis/test_saturation.py` runs them on one without VNNI).
    """
    return groups == channels and inputs_a_group == 1 and groups > 1


def integer_layers(network: Network) -> Iterator[tuple[fx.Node, QParams, int]]:
    """Each layer that is computed on integers of eight bits; kernels for 16 add in more.

    Yields its node, the quantization parameters of its weight, and its input's largest integer.
    """
    for layer, qparams in weight_qparams(network).items():
        data = qparams_of(Layer(layer).data)
        shape = network.tensor(qparams.source_name).shape
        scales = network.tensor(qparams.scale)
        if data is None or data.is_wide or scales.dim() > 1 or len(shape) < 2:
            continue
        if len(shape) > 2 and is_depthwise(shape[0], Layer(layer).groups, shape[1]):
            continue
        yield layer, qparams, data.high


def _codes(network: Network, qparams: QParams) -> Tensor:
    weight = network.tensor(qparams.source_name).detach().cpu()
    return quantized(
        weight, network.tensor(qparams.scale).detach().cpu(), qparams.low, qparams.high
    )
