"""Ternarize: reduce weights to -1, 0 and 1, times one or two scales per output channel."""

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
from penjing.passes.contract import Pass, Progress
from penjing.passes.counted import counted
from penjing.passes.rounding.calibration import Calibration, calibrated
from penjing.passes.rounding.weights import (
    by_channel,
    choose,
    rounding,
    with_bits,
    with_overflow_fix,
)
from penjing.tasks.task import Task


@dataclass(frozen=True)
class Ternarize(Pass):
    """Make the weights of all layers except the first and the last ternary.

    An output channel of a weight w_OI.. has the threshold t_O = threshold mean |w_O|. Its weights
    become

        s_O where w > t_O,    -s_O where w < -t_O,    0 elsewhere

    The scale s_O starts as the mean magnitude of the weights that aren't 0, and is learned. The
    network stays trainable. Batch norms stay in place for the training, unless `activations` are
    quantized; a runtime folds them into the scales on export.

    The pass pays only with training behind it: without `Tune`, the accuracy is low. The usual
    recipe is `Ternarize()`, `Tune`. To compute on integers as well, add `Ternarize(activations=8)`,
    which then only folds batch norms and quantizes activations, and a short `Tune`. Quantizing
    activations needs training samples for calibration.

    Attributes:
        scales: `"one"` scale per output channel (TWN), or `"two"`, one for each sign (TTQ). No
            runtime has integer kernels for two.
        threshold: the share of a channel's mean magnitude up to which a weight becomes 0, in
            [0, 2).
        ends: the bits of the weights of the first and the last layer, 2 to 8, or None for float.
        activations: the bits of the inputs of layers, 2 to 8, or None for float.
        samples: the number of training samples for calibration, 2 or more.
        skip: names of layers, or prefixes of names, to leave in float.

    Raises:
        InputError: an option is out of range, or `skip` names an unknown layer.

    Source: F. Li et al., "Ternary Weight Networks", 2016; C. Zhu et al., "Trained Ternary
    Quantization", 2017.

    >>> import penjing, torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(),
    ...     nn.Linear(16, 4))
    >>> data = penjing.Arrays(torch.randn(32, 8), torch.arange(32) % 4)
    >>> task = penjing.Task(model, data.x[:2], train=data, test=data)
    >>> network = penjing.capture(model, task.example)
    >>> print(penjing.passes.Ternarize().plan(network, task).summary)
    makes the weights of 1 layer ternary; quantizes the weights of 2 layers to 8 bits
    """

    scales: Literal["one", "two"] = "one"
    threshold: float = 0.7
    ends: int | None = 8
    activations: int | None = None
    samples: int = 512
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.scales not in ("one", "two"):
            raise InputError(f"scales must be 'one' or 'two'; found {self.scales!r}")
        if not 0 <= self.threshold < 2:
            raise InputError(
                "threshold must be in [0, 2), as a share of the mean magnitude (usually 0.7); "
                f"found {self.threshold}"
            )
        for name in ("ends", "activations"):
            bits = getattr(self, name)
            if bits is not None and not 2 <= bits <= 8:
                raise InputError(f"{name} must be 2 to 8 bits, or None for float; found {bits}")
        if self.samples < 2:
            raise InputError(f"samples must be 2 or more to find ranges; found {self.samples}")
        object.__setattr__(self, "skip", tuple(self.skip))

    @property
    def requires(self) -> frozenset[Condition]:
        """Training samples, if activations get bits."""
        return calibrated(self.activations)

    @property
    def provides(self) -> frozenset[Condition]:
        """Quantized weights in the first and the last layer, and activations, if they get bits."""
        return rounding(self.ends is not None, self.activations is not None)

    def decide(self, network: Network, task: Task, progress: Progress) -> Plan:
        """Choose the layers; to quantize activations, run calibration samples on a ternary copy."""
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
        done = [f"makes the weights of {counted(len(few), 'layer')} ternary"] if few else []
        if ends:
            done.append(
                f"quantizes the weights of {counted(len(ends), 'layer')} to {self.ends} bits"
            )
        if values:
            bits = [int(qparams["high"]).bit_length() for qparams in values.values()]
            done.append(f"quantizes {with_bits('activation', bits)}")
        return with_overflow_fix(self._plan(edits, "; ".join(done), chosen.left), network)


def _rounds_values(network: Network) -> bool:
    return any(qparams.source.op != "get_attr" for qparams in qparams_in(network))
