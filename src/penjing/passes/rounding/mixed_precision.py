"""MixedPrecision: give each layer's weight the bits that it needs, within a budget of bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, fx

from penjing.arith import knapsack
from penjing.arith.fake_quantize import fake_quantize
from penjing.arith.packing import stored_bytes
from penjing.arith.quantizer import RangeMethod, quantized, weight_ends, weight_scales
from penjing.contract import Plan
from penjing.errors import InputError
from penjing.network import Network, carry_out
from penjing.network.graph.layers import Layer, layers_of
from penjing.passes.conditions import Condition
from penjing.passes.contract import Pass, Progress
from penjing.passes.rounding.alone import Alone
from penjing.passes.rounding.calibration import Calibration
from penjing.passes.rounding.sensitivity import OUTPUT_LOSSES, OutputLoss, sensitivities
from penjing.passes.rounding.weights import choose, ends, rounding, with_bits, with_overflow_fix
from penjing.tasks.task import Task

BYTES_A_CHANNEL = 5  # a scale and a zero point
EDGE_BITS = 8  # for the first and the last layer, if `uniform` gives the others fewer


@dataclass(frozen=True)
class MixedPrecision(Pass):
    """Choose the bits of every layer's weight so that the loss is least within a budget of bytes.

    The pass quantizes each layer l alone to each width b and measures the loss L_lb of the
    network's outputs on training samples, without labels. To first order these losses add up.
    With the bytes B_lb, the pass solves exactly

        min over b_1, b_2, ... of sum_l L_l(b_l)     subject to     sum_l B_l(b_l) <= budget

    Bytes are those that a file spends on the codes, scales and zero points of the quantized
    layers. The result is what `Quantize` makes with these widths.

    The pass pays where the size of the file matters, or where a uniform width costs too much
    accuracy. It needs training samples and a network that isn't quantized. Give exactly one of
    `bytes` and `uniform`.

    Attributes:
        bytes: the budget as a share of the weights' bytes in float32, in (0, 1].
        uniform: the budget as the bytes that this width, 2 to 8 bits, would take in all layers,
            with eight bits in the first and the last; 2.5 bits take the mean of what 2 and 3 do.
        widths: the widths to choose from, each 2 to 8 bits.
        activations: the bits of activations, as in `Quantize`, or None.
        loss: the loss of the outputs: `"kl"` for class scores, `"squares"` for any outputs.
        samples: the number of training samples, 2 or more.
        ranges, percentile, skip: as in `Quantize`.

    Raises:
        InputError: an option is out of range, no choice of widths fits the budget, or the
            calibration data has another shape or values that aren't finite.

    Source: Z. Yao et al., "HAWQ-V3: Dyadic Neural Network Quantization", 2021 (additive
    sensitivities, solved exactly).

    >>> import penjing, torch
    >>> from torch import nn
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    >>> data = penjing.Arrays(torch.randn(64, 8), torch.arange(64) % 4)
    >>> task = penjing.Task(model, data.x[:2], train=data, test=data)
    >>> network = penjing.capture(model, task.example)
    >>> mixed = penjing.passes.MixedPrecision(bytes=0.3, widths=(4, 8), samples=64)
    >>> print(mixed.plan(network, task).summary.split(":")[0])
    quantizes the weights of 2 layers (1 to 4 bits, 1 to 8 bits)
    """

    bytes: float | None = None
    uniform: float | None = None
    widths: tuple[int, ...] = (2, 3, 4, 6, 8)
    activations: int | None = 8
    loss: OutputLoss = "kl"
    samples: int = 512
    ranges: RangeMethod = "mse"
    percentile: float = 99.99
    skip: tuple[str, ...] = ()

    requires: ClassVar[frozenset[Condition]] = frozenset({Condition.CALIBRATION, Condition.FLOAT})

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(sorted(set(self.widths))))
        object.__setattr__(self, "skip", tuple(self.skip))
        if (self.bytes is None) == (self.uniform is None):
            raise InputError(
                f"give exactly one of bytes and uniform; found {self.bytes} and {self.uniform}"
            )
        if self.bytes is not None and not 0 < self.bytes <= 1:
            raise InputError(
                f"bytes must be in (0, 1], as a share of the weights' bytes in float32; found "
                f"{self.bytes}"
            )
        whole = (*self.widths, *([] if self.activations is None else [self.activations]))
        is_wrong = not self.widths or any(bits not in range(2, 9) for bits in whole)
        if is_wrong or not (self.uniform is None or 2 <= self.uniform <= 8):
            raise InputError(
                f"widths, uniform and activations must be 2 to 8 bits; found {self.widths}, "
                f"{self.uniform} and {self.activations}"
            )
        if self.loss not in OUTPUT_LOSSES:
            raise InputError(f"loss must be {' or '.join(OUTPUT_LOSSES)}; found {self.loss!r}")
        if self.ranges not in ("mse", "percentile", "minmax"):
            raise InputError(f"ranges must be mse, percentile or minmax; found {self.ranges!r}")
        if self.samples < 2:
            raise InputError(f"samples must be 2 or more to find ranges; found {self.samples}")

    @property
    def provides(self) -> frozenset[Condition]:
        """Quantized weights, and quantized activations if they get bits."""
        return rounding(True, self.activations is not None)

    def decide(self, network: Network, task: Task, progress: Progress) -> Plan:
        """Fold on a copy, measure the loss of each layer at each width, and choose the widths."""
        start: tuple[Mapping[str, Any], ...] = ({"edit": "fold_batch_norm"}, {"edit": "pool_means"})
        folded = carry_out(network, self._plan(start))
        layers = choose(folded, self.skip, ends_alike=True, ends_float=False)
        alone = Alone.of(folded, self.skip, {}, recurrent=True)
        layers.left.extend(alone.left)
        if not layers.few:
            return self._plan(left_alone=layers.left)
        table = _Table(folded, layers.few, self.widths)
        limit = self._limit(table)
        table.measure(task, self.loss, self.samples, progress)
        chosen = table.solve(limit)
        activations: dict[str, Any] = {}
        if self.activations is not None:
            find = Calibration(self.activations, self.ranges, self.samples, self.percentile)
            activations = find(folded, task, layers.few, layers.left)
        edit = {
            "edit": "fake_quantize",
            "activations": activations,
            "weights": table.weights(chosen),
        }
        summary = alone.summary(self._summary(table, chosen, limit))
        edits = (*start, edit, *alone.edits(folded))
        plan = self._plan(edits, summary, layers.left, table.reasons(chosen))
        return with_overflow_fix(plan, network)

    def _limit(self, table: _Table) -> int:
        """The budget in bytes.

        Raises:
            InputError: no choice of widths fits it.
        """
        full, least = table.float_bytes, table.least_bytes
        if self.bytes is not None:
            limit, asked = int(self.bytes * full), f"bytes={self.bytes:g} allows"
        else:
            assert self.uniform is not None
            limit, asked = table.uniform_bytes(self.uniform), f"uniform={self.uniform:g} takes"
        if least > limit:
            raise InputError(
                f"{asked} {limit} bytes, but widths of {', '.join(map(str, self.widths))} bits "
                f"take at least {least} bytes, {least / full:.4f} of the {full} in float32"
            )
        return limit

    def _summary(self, table: _Table, chosen: Sequence[int], limit: int) -> str:
        layers = with_bits("layer", [self.widths[place] for place in chosen])
        spent = table.spent(chosen)
        return (
            f"quantizes the weights of {layers}: {spent} bytes of {limit} allowed, "
            f"{spent / table.float_bytes:.3f} of float32; predicted loss {table.lost(chosen):.3g}"
        )


class _Table:
    """The bytes and the loss of each layer at each width."""

    def __init__(self, network: Network, layers: list[fx.Node], widths: tuple[int, ...]) -> None:
        self.network, self.layers, self.widths = network, layers, widths
        self.scales = [
            [weight_scales(self._weight(layer), bits) for bits in widths] for layer in layers
        ]
        self.costs = [
            [
                _bytes(self._weight(layer), scale, bits)
                for scale, bits in zip(some, widths, strict=True)
            ]
            for layer, some in zip(layers, self.scales, strict=True)
        ]
        self.losses: list[list[float]] = []

    def _weight(self, layer: fx.Node) -> Tensor:
        return self.network.tensor(Layer(layer).weight_name).detach().cpu()

    @property
    def float_bytes(self) -> int:
        return sum(4 * self._weight(layer).numel() for layer in self.layers)

    @property
    def least_bytes(self) -> int:
        return sum(map(min, self.costs))

    def uniform_bytes(self, bits: float) -> int:
        """The bytes of all layers at one width, with eight bits in the first and the last; between
        two widths, in proportion."""
        below, part = int(bits), bits - int(bits)
        least = self._at_one_width(below)
        return least if not part else round(least + part * (self._at_one_width(below + 1) - least))

    def _at_one_width(self, bits: int) -> int:
        edges = ends(layers_of(self.network))
        total = 0
        for layer in self.layers:
            weight, width = self._weight(layer), max(bits, EDGE_BITS) if layer in edges else bits
            total += _bytes(weight, weight_scales(weight, width), width)
        return total

    def measure(self, task: Task, loss: OutputLoss, samples: int, progress: Progress) -> None:
        """Measure the losses."""
        device = self.network.device
        weights = {
            layer: [
                fake_quantize(self._weight(layer), scale, 0, *weight_ends(bits)).to(device)
                for scale, bits in zip(some, self.widths, strict=True)
            ]
            for layer, some in zip(self.layers, self.scales, strict=True)
        }
        losses = sensitivities(self.network, task, weights, loss, samples, progress)
        self.losses = [losses[layer] for layer in self.layers]

    def solve(self, limit: int) -> list[int]:
        """The place of each layer's width among the widths."""
        return knapsack.choose(self.costs, self.losses, limit)

    def spent(self, chosen: Sequence[int]) -> int:
        return sum(some[place] for some, place in zip(self.costs, chosen, strict=True))

    def lost(self, chosen: Sequence[int]) -> float:
        return sum(some[place] for some, place in zip(self.losses, chosen, strict=True))

    def weights(self, chosen: Sequence[int]) -> dict[str, Any]:
        """The `weights` of the edit `fake_quantize`."""
        weights = {}
        for layer, some, place in zip(self.layers, self.scales, chosen, strict=True):
            low, high = weight_ends(self.widths[place])
            weights[layer.name] = {"scales": some[place].tolist(), "low": low, "high": high}
        return weights

    def reasons(self, chosen: Sequence[int]) -> list[str]:
        """For each layer, its loss, and the loss and bytes of the next narrower and wider width."""
        lines = []
        for layer, cost, loss, place in zip(
            self.layers, self.costs, self.losses, chosen, strict=True
        ):
            line = f"{layer.meta['layer']}: {self.widths[place]} bits, loss {loss[place]:.2g}"
            for other in (place - 1, place + 1):
                if 0 <= other < len(cost):
                    line += (
                        f"; {self.widths[other]} bits would give loss {loss[other]:.2g} and "
                        f"{cost[other] - cost[place]:+d} bytes"
                    )
            lines.append(line)
        return lines


def _bytes(weight: Tensor, scales: Tensor, bits: int) -> int:
    codes = quantized(weight, scales, *weight_ends(bits)).numpy()
    return stored_bytes(codes) + BYTES_A_CHANNEL * len(scales)
