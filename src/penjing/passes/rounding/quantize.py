"""Quantize: integers for weights and activations, their grids chosen from calibration data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import fx

from penjing.arith.quantizer import RangeMethod, weight_ends, weight_scales
from penjing.contract import LeftAlone, Plan
from penjing.errors import InputError
from penjing.network import Network, carry_out
from penjing.network.graph.layers import CONVOLUTIONS, Layer, layers_of
from penjing.passes.conditions import Condition
from penjing.passes.contract import Pass
from penjing.passes.rounding.calibration import Calibration, calibrated
from penjing.passes.rounding.weights import (
    ends,
    require_layers,
    rounding,
    why_not,
    with_overflow_fix,
)
from penjing.passes.structure.widths import is_in
from penjing.tasks.task import Task

WIDTHS = (2, 3, 4, 5, 6, 7, 8)


@dataclass(frozen=True)
class Quantize(Pass):
    """Round weights (per channel, symmetric) and activations (per tensor) to grids of integers.

    Batch norms are folded first. A rounding stands where the runtime fuses it: at the inputs and
    outputs of convolutions, linear layers, sums, concatenations and pools, behind a ReLU rather
    than before it; operators that only move values keep the grid of their input, and what is
    concatenated shares a grid where no reader gets much coarser values. The result is still a
    network of real numbers, which the passes that refine a rounding and `Tune` can train; a runtime
    makes the integers.

    Attributes:
        weights: bits of weights, 2 to 8.
        activations: bits of what layers read, 2 to 8, or None: weights only. Sums, pools and
            concatenations keep eight, as does whatever the first and the last layer read.
        ends: at least so many bits for the weights of the first and the last layer.
        layers: bits of weights by layer or prefix, instead of `weights`; 0 leaves it in float.
        scales: `"channel"` (one to each output channel) or `"tensor"`.
        group: of linear layers, how many inputs share a scale; only with `activations=None`.
        ranges: `"mse"` (least squared error), `"percentile"` or `"minmax"` of the activations.
        samples: how many training samples are looked at; two or more.
        percentile: for `"percentile"`.
        skip: layers to leave in float, by name or prefix.
        outputs: round what a layer or a concatenation gives even where nothing reads integers, so
            at the network's outputs and before operators on floats; needed where a runtime computes
            a layer on integers only if they come out as well.
        elementwise: round what activations and products give of rounded values, for NPUs, which
            compute nothing on real numbers. What a sigmoid or a tangent gives is rounded on the
            whole of the range that it can have.
        split_silu: write SiLU as the product of a value with its sigmoid; needed where a runtime
            has integers for these only.
        symmetric: grids of values reach as far below zero as above, and so have zero in their
            middle; needed where a runtime's integers have no zero point. A value behind a ReLU
            then has half as many levels.
        overflow_fix: enlarge scales of weights just so far that x86 processors without VNNI, which
            add products in pairs of 16 bits, compute the same integers as all others (see
            `penjing.arith.saturation`); the plan's notes say what it changed. Not needed where
            kernels add in 32 bits everywhere.

    Raises:
        InputError: an option is out of range, or names no layer; calibration data of another
            shape, or with values that aren't finite.

    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", 2018.
    """

    weights: int = 8
    activations: int | None = 8
    ends: int = 8
    layers: Mapping[str, int] = field(default_factory=dict)
    scales: Literal["channel", "tensor"] = "channel"
    group: int | None = None
    ranges: RangeMethod = "mse"
    samples: int = 512
    percentile: float = 99.99
    skip: tuple[str, ...] = ()
    outputs: bool = False
    elementwise: bool = False
    split_silu: bool = False
    symmetric: bool = False
    overflow_fix: bool = True

    def __post_init__(self) -> None:
        widths: dict[str, Any] = {"weights": self.weights, "ends": self.ends}
        if self.activations is not None:
            widths["activations"] = self.activations
        for name, bits in (*widths.items(), *self.layers.items()):
            allowed = WIDTHS if name in widths else (0, *WIDTHS)
            if bits not in allowed:
                raise InputError(
                    f"{name} must have {', '.join(map(str, allowed[:-1]))} or 8 bits; found "
                    f"{bits}; for one bit see Binarize, for -1, 0 and 1 Ternarize"
                )
        if self.scales not in ("channel", "tensor"):
            raise InputError(f"scales must be channel or tensor; found {self.scales!r}")
        if self.group is not None and (self.group < 2 or self.activations is not None):
            raise InputError(
                f"group must be 2 or more, and activations None; found {self.group} and "
                f"{self.activations}"
            )
        if self.ranges not in ("mse", "percentile", "minmax"):
            raise InputError(f"ranges must be mse, percentile or minmax; found {self.ranges!r}")
        if self.samples < 2:
            raise InputError(f"samples must be 2 or more to find ranges; found {self.samples}")
        object.__setattr__(self, "skip", tuple(self.skip))
        object.__setattr__(self, "layers", dict(self.layers))

    @property
    def requires(self) -> frozenset[Condition]:
        """A network that isn't rounded; for the grids of values, samples."""
        return calibrated(self.activations) | {Condition.FLOAT}

    @property
    def provides(self) -> frozenset[Condition]:
        """Grids of weights; of values, if they have bits."""
        return rounding(True, self.activations is not None)

    def decide(self, network: Network, task: Task) -> Plan:
        """Fold on a copy, run calibration samples, and choose every scale."""
        start: tuple[Mapping[str, Any], ...] = ({"edit": "fold_batch_norm"}, {"edit": "pool_means"})
        if self.split_silu:
            start += ({"edit": "split_silu"},)
        folded = carry_out(network, self._plan(start))
        widths, left_alone = self._widths(folded)
        if not widths:
            return self._plan(left_alone=left_alone)
        activations: dict[str, Any] = {}
        if self.activations is not None:
            find = Calibration(
                self.activations, self.ranges, self.samples, self.percentile,
                self.outputs, self.elementwise, self.symmetric,
            )  # fmt: skip
            activations = find(folded, task, list(widths), left_alone)
        weights = {node.name: self._weight(folded, node, bits) for node, bits in widths.items()}
        edit = {"edit": "fake_quantize", "activations": activations, "weights": weights}
        plan = self._plan((*start, edit), self._summary(widths, activations), left_alone)
        return with_overflow_fix(plan, network) if self.overflow_fix else plan

    def _widths(self, network: Network) -> tuple[dict[fx.Node, int], list[LeftAlone]]:
        """Bits of each layer's weights, and what stays in float."""
        nodes = layers_of(network)
        names = [str(node.meta["layer"]) for node in nodes]
        require_layers("skip", self.skip, names)
        require_layers("layers", tuple(self.layers), names)
        widths: dict[fx.Node, int] = {}
        left = []
        for node, layer in zip(nodes, names, strict=True):
            named = [bits for name, bits in self.layers.items() if is_in(layer, name)]
            if any(is_in(layer, name) for name in self.skip):
                left.append(LeftAlone(layer, "named in skip"))
            elif named and not named[-1]:
                left.append(LeftAlone(layer, "0 bits in layers"))
            elif why := why_not(node):
                left.append(LeftAlone(layer, why))
            else:
                usual = max(self.weights, self.ends) if node in ends(nodes) else self.weights
                widths[node] = named[-1] if named else usual
        return widths, left

    def _weight(self, network: Network, node: fx.Node, bits: int) -> dict[str, Any]:
        weight = network.tensor(Layer(node).weight_name).cpu()
        low, high = weight_ends(bits)
        group = self.group if node.target not in CONVOLUTIONS else None
        if group is not None and weight[0].numel() % group:
            group = None
        if self.scales == "tensor":
            scales = weight_scales(weight.reshape(1, -1), bits).expand(len(weight))
        else:
            scales = weight_scales(weight, bits, group)
        return {"scales": scales.tolist(), "low": low, "high": high}

    def _summary(self, widths: Mapping[fx.Node, int], activations: Mapping[str, Any]) -> str:
        counts = {bits: list(widths.values()).count(bits) for bits in sorted(set(widths.values()))}
        layers = ", ".join(f"{count} layers to {bits} bits" for bits, count in counts.items())
        if not activations:
            return f"{layers}, values in float"
        narrow = sum(qparams["high"] < 255 for qparams in activations.values())
        few = f", {narrow} of them to {self.activations}" if narrow else ""
        return f"{layers}, {len(activations)} values to 8{few}"
