"""Which of a network's integer layers may leave 16 bits on x86 processors without VNNI.

See `penjing.arith.saturation`. Scales of weights that grow a little keep a layer within them, on
every processor, whatever its kernels take for neighbours.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, fx

from penjing.arith.quantizer import quantized
from penjing.arith.saturation import saturates, scales_that_fit, trimmed
from penjing.contract import Saturating
from penjing.network.graph.layers import Layer
from penjing.network.graph.network import Network
from penjing.network.graph.qparams import QParams, qparams_of, weight_qparams


def saturating(network: Network) -> list[Saturating]:
    """The layers that may leave 16 bits, in order; empty if none can, which is a proof."""
    layers = []
    for layer, qparams, top in _integer_layers(network):
        over = saturates(_codes(network, qparams), top)
        if bool(over.any()):
            layers.append(Saturating(str(layer.meta["layer"]), int(over.sum()), len(over)))
    return layers


def fix_overflow(network: Network) -> None:
    """Enlarge the scales of weights so far that no layer can leave 16 bits, in place."""
    for _, qparams, top in _integer_layers(network):
        scales = network.tensor(qparams.scale).detach()
        weight = network.tensor(qparams.source_name).detach().cpu()
        grown = scales_that_fit(weight, scales.cpu(), qparams.low, qparams.high, top)
        scales.copy_(grown)


def without_overflow(network: Network) -> Network:
    """The network itself if none of its layers can leave 16 bits, else a copy that is mended.

    A channel's scale grows, or its largest weights are trimmed, whichever keeps it nearer to its
    weights: what was rounded with care (GPTQ, AdaRound) lies on its integers, and a new scale would
    round all of it anew.
    """
    if not saturating(network):
        return network
    new = copy.deepcopy(network)
    for _, qparams, top in _integer_layers(new):
        _mend(new, qparams, top)
    return new


def _mend(network: Network, qparams: QParams, top: int) -> None:
    """Keep a layer within 16 bits by whichever of the two changes its weights less."""
    scales, weight = (
        network.tensor(qparams.scale).detach(),
        network.tensor(qparams.source_name),
    )
    old, rows = scales.cpu(), weight.detach().cpu()
    sizes = old.view(-1, *[1] * (rows.dim() - 1))
    nearest = trimmed(quantized(rows, old, qparams.low, qparams.high), top) * sizes
    grown = scales_that_fit(rows, old, qparams.low, qparams.high, top)
    anew = quantized(rows, grown, qparams.low, qparams.high) * grown.view_as(sizes)
    errors = [
        (candidate - rows).flatten(1).double().square().sum(1) for candidate in (nearest, anew)
    ]
    if bool((old == old[0]).all()):  # one scale for all of them
        errors = [error.sum().expand_as(old) for error in errors]
    trims = errors[0] <= errors[1]
    changes = trims & (grown != old)
    scales.copy_(torch.where(trims, old, grown))
    with torch.no_grad():
        weight.copy_(torch.where(changes.view_as(sizes), nearest, rows))


def is_depthwise(channels: int, groups: int, inputs_a_group: int) -> bool:
    """Whether each output of a convolution reads an input of its own.

    Its products are added along a window, not along channels; ONNX Runtime's and OpenVINO's kernels
    do that in 32 bits on every x86 processor (`tests/network/study/test_saturation.py` runs them on
    one without VNNI).
    """
    return groups == channels and inputs_a_group == 1 and groups > 1


def _integer_layers(network: Network) -> Iterator[tuple[fx.Node, QParams, int]]:
    """Each layer that is computed on integers, with its weight's grid and the largest integer that
    it reads."""
    for layer, qparams in weight_qparams(network).items():
        data = qparams_of(Layer(layer).data)
        shape = network.tensor(qparams.source_name).shape
        scales = network.tensor(qparams.scale)
        if data is None or scales.dim() > 1 or len(shape) < 2:
            continue
        if len(shape) > 2 and is_depthwise(shape[0], Layer(layer).groups, shape[1]):
            continue
        yield layer, qparams, data.high


def _codes(network: Network, qparams: QParams) -> Tensor:
    weight = network.tensor(qparams.source_name).detach().cpu()
    return quantized(
        weight, network.tensor(qparams.scale).detach().cpu(), qparams.low, qparams.high
    )
