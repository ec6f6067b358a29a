"""Compensate: re-solve the layers of a pruned network so that its outputs stay close."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import fx

from penjing.contract import Plan
from penjing.errors import InputError
from penjing.network import Network, capture
from penjing.network.analysis.activation_cache import ActivationCache
from penjing.network.analysis.lineage import surviving
from penjing.passes.conditions import Condition
from penjing.passes.contract import Progress
from penjing.passes.counted import counted
from penjing.passes.in_turn import InTurn, Work
from penjing.passes.structure.solve import Solve, solvable
from penjing.tasks.task import Task


@dataclass(frozen=True)
class Compensate(InTurn):
    """Re-solve convolutions and linear layers by least squares, without labels.

    The pass goes through the layers in the order of the graph. Each layer gets the weights W and
    the offset b that bring its output closest to the original network's output y, on the inputs x
    that the layer receives now:

        min over W, b of mean |y - W x - b|^2 + ridge v |W|^2     (v is the mean variance of x)

    x_RK and y_RO hold R sampled positions; a convolution is unfolded into its K = C k k window
    values. A layer without a bias and without a batch norm has b = 0. If a batch norm follows the
    layer, y is the output of that norm. If a residual sum follows, y is the sum less the shortcut,
    so the layer also compensates errors of earlier layers. The statistics of batch norms are set
    to those of the new outputs. Weights that `Sparsify` has set to zero stay zero: each output is
    solved on the inputs that it still has.

    The pass pays after `PruneChannels`, `Merge` or `Sparsify`, and it needs only unlabelled
    training samples. It has to come before `Tune`, whose training it would undo.

    Attributes:
        samples: the number of training samples, 2 or more. Fewer are used if their activations
            wouldn't fit into memory.
        rows: the largest number of positions that enter one system, drawn at random; 2 or more.
            Every system gets at least two positions for each unknown, if the data has as many.
        ridge: the regularization, relative to the mean variance of the inputs; above 0.

    Raises:
        InputError: an option is out of range, or the calibration data has another shape.

    Source: Y. He, X. Zhang, J. Sun, "Channel Pruning for Accelerating Very Deep Neural Networks",
    2017 (least squares on the outputs, with the shortcut's error included).

    >>> import penjing, torch
    >>> from torch import nn
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    >>> data = penjing.Arrays(torch.randn(64, 8), torch.arange(64) % 4)
    >>> task = penjing.Task(model, data.x[:2], train=data, test=data)
    >>> network = penjing.capture(model, task.example)
    >>> pruned = penjing.passes.PruneChannels(0.5)(network, task)
    >>> compensate = penjing.passes.Compensate(samples=64)
    >>> print(compensate.plan(pruned, task).summary)
    re-solves 2 layers by least squares on 64 samples
    >>> solved = compensate(pruned, task)
    >>> error = lambda other: (other(data.x) - network(data.x)).square().mean().item()
    >>> error(solved) < error(pruned)
    True
    """

    samples: int = 512
    rows: int = 50_000
    ridge: float = 1e-4

    requires: ClassVar[frozenset[Condition]] = frozenset(
        {Condition.CALIBRATION, Condition.FLOAT, Condition.REDUCED}
    )
    provides: ClassVar[frozenset[Condition]] = frozenset({Condition.SOLVED})
    doing: ClassVar[str] = "solving"

    def __post_init__(self) -> None:
        if self.samples < 2 or self.rows < 2:
            raise InputError(
                f"samples and rows must be 2 or more; found {self.samples} and {self.rows}"
            )
        if not self.ridge > 0:
            raise InputError(f"ridge must be positive; found {self.ridge}")

    def decide(self, network: Network, task: Task, progress: Progress) -> Plan:
        """List the layers that can be solved; the graph itself stays as it is."""
        layers, left = solvable(network)
        return self._plan(
            summary=f"re-solves {counted(len(layers), 'layer')} by least squares "
            f"{self.on_samples(network)}",
            left_alone=left,
            parts=[(node.name,) for node in layers],
        )

    def teacher(self, student: Network, task: Task) -> Network:
        """The original network, before pruning."""
        return capture(task.model, task.example)

    def begin(self, network: Network, student: ActivationCache, teacher: ActivationCache) -> Work:
        """Solve one layer for the original's outputs, given the inputs that it has now."""
        left = surviving(teacher.network, network.history)
        draw = torch.Generator().manual_seed(0)

        def work(layer: fx.Node) -> fx.Node:
            with torch.no_grad():
                solve = Solve(student.network, layer, left, teacher, student, draw)
                solve.run(self.rows, self.ridge)
            return layer

        return work
