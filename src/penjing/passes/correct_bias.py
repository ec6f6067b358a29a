"""CorrectBias: take back the mean error that rounding leaves in each channel."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
from torch import Tensor, fx

from penjing.contract import LeftAlone, Plan
from penjing.data import calibration
from penjing.errors import InputError
from penjing.measure import costs
from penjing.network import Network, carry_out
from penjing.network.fake_quantized import own_bias, unrounded, weight_grids
from penjing.network.layers import CONVOLUTIONS, LAYERS
from penjing.network.lockstep import Lockstep
from penjing.passes.contract import Pass, Progress
from penjing.passes.grids import NOT_ROUNDED
from penjing.task import Task


@dataclass(frozen=True)
class CorrectBias(Pass):
    """Add to each layer's bias what its outputs lack on average, channel by channel.

    In the order of the graph, on the values that a layer really gets once those before it are
    corrected, with y from the same network without any rounding:

        b_i += mean over samples and positions of (y_i - y'_i)

    Layers without a bias get one, which runtimes fuse. Not for a network whose rounding was
    learned (`Reconstruct`): that has seen to the mean error already, and correcting it again, or
    before, makes it worse.

    Attributes:
        samples: training samples to look at, fewer where their values would not fit into memory;
            their labels are not used.

    Raises:
        InputError: an option is out of range; calibration data of another shape.

    Source: M. Nagel, M. van Baalen, T. Blankevoort, M. Welling, "Data-Free Quantization Through
    Weight Equalization and Bias Correction", 2019, appendix D (empirical bias correction).
    """

    samples: int = 512

    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise InputError(f"samples must be 2 or more to find a mean; found {self.samples}")

    def plan(self, network: Network, task: Task) -> Plan:
        """The layers to correct, and a bias for those that have none."""
        name, rounded = type(self).__name__, weight_grids(network)
        if not rounded:
            return Plan(name, asdict(self), left_alone=(NOT_ROUNDED,))
        left, bare, count = [], [], 0
        for node in network.calls():
            if node.target not in LAYERS:
                continue
            why = "" if node in rounded else "its weight is not rounded"
            given = len(node.args) > 2 and node.args[2] is not None
            if not why and given and own_bias(node) is None:
                why = "its bias is computed or shared"
            if why:
                left.append(LeftAlone(str(node.meta["layer"]), why))
                continue
            count += 1
            if own_bias(node) is None:
                bare.append(node.name)
        edits = ({"edit": "give_bias", "layers": bare},) if bare else ()
        samples = self._samples(network)
        why = "" if samples == self.samples else f" ({self.samples} would not fit into memory)"
        summary = f"biases of {count} layers corrected on {samples} samples{why}" if count else ""
        if bare:
            summary += f", {len(bare)} of them new"
        return Plan(name, asdict(self), edits, summary, tuple(left))

    def _samples(self, network: Network) -> int:
        return costs.samples_in_memory(unrounded(network), self.samples)

    def apply(
        self, network: Network, plan: Plan, task: Task, progress: Progress | None = None
    ) -> Network:
        """Correct layer after layer on a copy."""
        new = carry_out(network, plan).eval()
        if not plan.summary:
            return new
        batches = list(calibration(task, self._samples(network)))
        teacher, student = Lockstep(unrounded(new), batches), Lockstep(new, batches)
        layers = [node for node in weight_grids(new) if own_bias(node) is not None]
        for number, node in enumerate(layers):
            if progress is not None:
                progress(f"correcting {node.meta['layer']}", number / len(layers))
            usual = _mean(teacher.value_of(node.name), node)
            found = _mean(student.value(node), node)
            bias = own_bias(node)
            assert bias is not None
            with torch.no_grad():
                tensor = new.tensor(str(bias.target))
                tensor.copy_(tensor.double() + usual - found)
            rounding = node.args[2]
            student.changed(rounding if rounding is not bias else node)  # type: ignore[arg-type]
            student.forget_before(node)
            teacher.forget_before(node)
        return new


def _mean(values: list[Tensor], layer: fx.Node) -> Tensor:
    """Of each channel over all samples and positions, (O,), float64."""
    dim = 1 if layer.target in CONVOLUTIONS else -1
    rows = [one.movedim(dim, -1).flatten(0, -2) for one in values]
    total = torch.stack([one.sum(0, dtype=torch.float64) for one in rows]).sum(0)
    return total / sum(len(one) for one in rows)
