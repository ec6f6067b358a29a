"""Which of a network's integer layers may leave 16 bits on x86 processors without VNNI.

See `penjing.arith.saturation`. Scales of weights that grow a little keep a layer within them, on
every processor, whatever its kernels take for neighbours.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

from torch import Tensor, fx

from penjing.arith.quantizer import quantized
from penjing.arith.saturation import saturates, scales_that_fit
from penjing.contract import Saturating
from penjing.network.fake_quantized import Grid, grid_of, weight_grids
from penjing.network.layers import Layer
from penjing.network.network import Network


def saturating(network: Network) -> list[Saturating]:
    """The layers that may leave 16 bits, in order; empty if none can, which is a proof."""
    found = []
    for layer, grid, top in _integer_layers(network):
        over = saturates(_codes(network, grid), top)
        if bool(over.any()):
            found.append(Saturating(str(layer.meta["layer"]), int(over.sum()), len(over)))
    return found


def fix_overflow(network: Network) -> None:
    """Enlarge the scales of weights so far that no layer can leave 16 bits, in place."""
    for _, grid, top in _integer_layers(network):
        scales = network.tensor(grid.scale).detach()
        weight = network.tensor(str(grid.source.target)).detach().cpu()
        grown = scales_that_fit(weight, scales.cpu(), grid.low, grid.high, top)
        scales.copy_(grown)


def without_overflow(network: Network) -> Network:
    """The network itself if none of its layers can leave 16 bits, else a copy that is mended."""
    if not saturating(network):
        return network
    new = copy.deepcopy(network)
    fix_overflow(new)
    return new


def is_depthwise(channels: int, groups: int, inputs_a_group: int) -> bool:
    """Whether each output of a convolution reads an input of its own.

    Its products are added along a window, not along channels; ONNX Runtime's and OpenVINO's kernels
    do that in 32 bits on every x86 processor (`tests/test_saturation.py` runs them on one without
    VNNI).
    """
    return groups == channels and inputs_a_group == 1 and groups > 1


def _integer_layers(network: Network) -> Iterator[tuple[fx.Node, Grid, int]]:
    """Each layer that is computed on integers, with its weight's grid and the largest integer that
    it reads."""
    for layer, grid in weight_grids(network).items():
        data = grid_of(Layer(layer).data)
        shape = network.tensor(str(grid.source.target)).shape
        scales = network.tensor(grid.scale)
        if data is None or scales.dim() > 1 or len(shape) < 2:
            continue
        if len(shape) > 2 and is_depthwise(shape[0], Layer(layer).groups, shape[1]):
            continue
        yield layer, grid, data.high


def _codes(network: Network, grid: Grid) -> Tensor:
    weight = network.tensor(str(grid.source.target)).detach().cpu()
    return quantized(weight, network.tensor(grid.scale).detach().cpu(), grid.low, grid.high)
