"""Overflow: keep the sums of a quantized layer within 16 bits by enlarging its weight scales.

The layer then computes the same integers on every x86 processor (`penjing.arith.saturation`).
"""

from __future__ import annotations

import copy

import torch

from penjing.arith.quantizer import quantized
from penjing.arith.saturation import scales_that_fit, trimmed
from penjing.network.analysis.saturation import integer_layers, saturating
from penjing.network.graph.network import Network
from penjing.network.graph.qparams import QParams


def fix_overflow(network: Network) -> None:
    """Enlarge weight scales until no layer can exceed 16 bits, in place."""
    for _, qparams, top in integer_layers(network):
        scales = network.tensor(qparams.scale).detach()
        weight = network.tensor(qparams.source_name).detach().cpu()
        grown = scales_that_fit(weight, scales.cpu(), qparams.low, qparams.high, top)
        scales.copy_(grown)


def without_overflow(network: Network) -> Network:
    """The network itself if no layer can exceed 16 bits, or else a corrected copy.

    In each channel, either the scale grows or the largest weights are trimmed, whichever changes
    the weights less. Weights that were rounded with care (GPTQ, AdaRound) are whole multiples of
    their scale, and a new scale would round all of them again.
    """
    if not saturating(network):
        return network
    new = copy.deepcopy(network)
    for _, qparams, top in integer_layers(new):
        _mend(new, qparams, top)
    return new


def _mend(network: Network, qparams: QParams, top: int) -> None:
    """Keep one layer within 16 bits, by the method that changes its weights less."""
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
