"""Tune: training as a step of a recipe."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import asdict, dataclass, field
from typing import ClassVar

from penjing.contract import Plan
from penjing.network import Network
from penjing.passes.conditions import Condition
from penjing.passes.contract import Pass, Progress
from penjing.tasks.data import first
from penjing.tasks.task import Task
from penjing.tune.options import TuneOptions
from penjing.tune.recalibrate import recalibrate
from penjing.tune.train import Clock, train


@dataclass(frozen=True)
class Tune(Pass):
    """Recalibrate batch norms, then train, distilled from the task's original model.

    Attributes:
        options: see `penjing.tune.options.TuneOptions`.
        recalibration_samples: training samples for the batch norms; 0 leaves them.
    """

    options: TuneOptions = field(default_factory=TuneOptions)
    recalibration_samples: int = 1024

    provides: ClassVar[frozenset[Condition]] = frozenset({Condition.TRAINED})

    @property
    def requires(self) -> frozenset[Condition]:
        """Labels and the task's loss, unless soft targets are all of the loss."""
        if self.options.distill == 1:
            return frozenset({Condition.CALIBRATION})
        return frozenset({Condition.CALIBRATION, Condition.LABELS, Condition.GRADIENTS})

    def decide(self, network: Network, task: Task) -> Plan:
        """Nothing of the graph changes; the plan only says how the weights will be trained."""
        options = self.options
        summary = (
            f"{options.epochs:g} epochs of {options.optimizer}, lr {options.lr:g}, "
            f"distill {options.distill:g}"
        )
        return Plan(type(self).__name__, asdict(self), (), summary)

    def apply(
        self,
        network: Network,
        plan: Plan,
        task: Task,
        progress: Progress | None = None,
        clock: Clock = time.monotonic,
        seconds: float | None = None,
    ) -> Network:
        """Train a copy, for at most so many `seconds` by that `clock`."""
        if self.recalibration_samples:
            network = recalibrate(network, first(task.train, self.recalibration_samples))
        tuned = train(network, task, self.options, progress, clock, seconds)
        tuned.history = (*network.history, dataclasses.replace(plan))
        return tuned
