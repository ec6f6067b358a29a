"""Ternarize: weights of -1, 0 and 1 times a scale or two for each output channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from penjing.contract import Plan
from penjing.errors import InputError
from penjing.network import Network, carry_out
from penjing.network.graph.layers import Layer, layers_of
from penjing.network.graph.qparams import qparams_in, scales_of
from penjing.passes.conditions import Condition
from penjing.passes.contract import Pass
from penjing.passes.rounding.calibration import Calibration, calibrated
from penjing.passes.rounding.weights import by_channel, choose, rounding, with_overflow_fix
from penjing.tasks.task import Task


@dataclass(frozen=True)
class Ternarize(Pass):
    """Make the weights of all layers but the first and the last ternary; it stays trainable.

    Untrained, such a network is worth little: `Tune` it. Batch norms stay, so that the training
    has them, unless `activations` are rounded; a runtime folds them into the scales. So the usual
    way is `Ternarize()`, `Tune`, and if integers are wanted `Ternarize(activations=8)`, which then
    only folds and rounds values, and a short `Tune` again.

    Attributes:
        scales: `"one"` to each output channel (TWN), or `"two"`, one for each sign (TTQ). Runtimes
            have no integer kernel for two.
        threshold: share of the mean magnitude of a channel up to which a weight becomes 0.
        ends: bits of the weights of the first and the last layer, 2 to 8; None: float.
        activations: bits of what layers read, 2 to 8, or None: float.
        samples: training samples that the grids of activations are found from.
        skip: layers to leave in float, by name or prefix.

    Raises:
        InputError: an option is out of range, or names no layer.

    Source: F. Li et al., "Ternary Weight Networks", 2016; C. Zhu et al., "Trained Ternary
    Quantization", 2017.
    """

    scales: Literal["one", "two"] = "one"
    threshold: float = 0.7
    ends: int | None = 8
    activations: int | None = None
    samples: int = 512
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.scales not in ("one", "two"):
            raise InputError(f"scales must be one or two; found {self.scales!r}")
        if not 0 <= self.threshold < 2:
            raise InputError(
                f"threshold must be in [0, 2) of the mean magnitude, 0.7 as a rule; found "
                f"{self.threshold}"
            )
        for name in ("ends", "activations"):
            bits = getattr(self, name)
            if bits is not None and not 2 <= bits <= 8:
                raise InputError(f"{name} must have 2 to 8 bits, or None: float; found {bits}")
        if self.samples < 2:
            raise InputError(f"samples must be 2 or more to find ranges; found {self.samples}")
        object.__setattr__(self, "skip", tuple(self.skip))

    @property
    def requires(self) -> frozenset[Condition]:
        """For the grids of values, samples."""
        return calibrated(self.activations)

    @property
    def provides(self) -> frozenset[Condition]:
        """Grids of weights at the ends, and of values, where they have bits."""
        return rounding(self.ends is not None, self.activations is not None)

    def decide(self, network: Network, task: Task) -> Plan:
        """Choose the layers; for activations, run calibration samples through the ternary copy."""
        chosen = choose(network, self.skip, False, self.ends is None)
        few = [node.name for node in chosen.few]
        edits: list[Mapping[str, Any]] = []
        values: dict[str, Any] = {}
        rounds = self.activations is not None and not _rounds_values(network)
        if rounds:
            edits += [{"edit": "fold_batch_norm"}, {"edit": "pool_means"}]
        if few:
            parameters = {"layers": few, "scales": self.scales, "threshold": self.threshold}
            edits.append({"edit": "ternarize", **parameters})
        staged = carry_out(network, self._plan(edits))
        wide = {node.name for node in chosen.wide}
        nodes = layers_of(staged)
        ends = by_channel(staged, [node for node in nodes if node.name in wide], self.ends or 8)
        if rounds and self.activations is not None:
            layers = [node for node in nodes if node.name in wide or scales_of(Layer(node).weight)]
            find = Calibration(self.activations, samples=self.samples)
            values = find(staged, task, layers, chosen.left) if layers else {}
        if ends or values:
            edits.append({"edit": "fake_quantize", "activations": values, "weights": ends})
        if not (few or ends or values):
            return self._plan(left_alone=chosen.left)
        summary = f"{len(few)} layers to -1, 0, 1 with {self.scales} scale(s) to a channel"
        summary += f", {len(ends)} to {self.ends} bits" if ends else ""
        summary += f", {len(values)} values to 8 bits or {self.activations}" if values else ""
        return with_overflow_fix(self._plan(edits, summary, chosen.left), network)


def _rounds_values(network: Network) -> bool:
    return any(qparams.source.op != "get_attr" for qparams in qparams_in(network))
