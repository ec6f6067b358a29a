"""Tune: train as a step of a recipe."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
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

WHOLE = 0.98
"""A training of at least this share of what was planned is told as planned."""


@dataclass(frozen=True)
class Tune(Pass):
    """Recalibrate the batch norms, then fine-tune with distillation from the original model.

    With the network's outputs y_NC, the original model's outputs t_NC, the temperature T and the
    share d of distillation, the loss is

        (1 - d) loss(y, labels) + d T^2 KL(softmax(t / T) || softmax(y / T))

    The learning rate follows one cycle. With validation data, the network keeps the weights of the
    epoch that validated best, the start included. Training a quantized network is
    quantization-aware training: the rounding stays in place and the scales are learned as well.

    Tuning pays whenever an earlier pass has cost accuracy and time for training is available. It
    needs training data, and, unless `distill` is 1, labels and a loss with gradients.

    Attributes:
        options: how to train; see `penjing.tune.options.TuneOptions`.
        recalibration_samples: the number of training samples from which to measure the mean and
            the variance of the batch norms again before training; 0 keeps the old ones.

    Raises:
        InputError: the data or the loss can't be used, the loss becomes NaN or infinite, or CUDA is
            asked for and absent.

    Source: G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", 2015;
    L. N. Smith, N. Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large
    Learning Rates", 2017 (one cycle).

    >>> import penjing, torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    >>> data = penjing.Arrays(torch.randn(64, 8), torch.arange(64) % 4)
    >>> task = penjing.Task(model, data.x[:2], train=data, test=data)
    >>> network = penjing.capture(model, task.example)
    >>> tune = penjing.passes.Tune(TuneOptions(epochs=2, lr=0.01, device="cpu"))
    >>> print(tune.plan(network, task).summary)
    trains for 2 epochs with sgd, peak learning rate 0.01, distillation share 0.9
    >>> tuned = tune(network, task)
    >>> torch.equal(tuned.get_parameter("0.weight"), network.get_parameter("0.weight"))
    False
    """

    options: TuneOptions = field(default_factory=TuneOptions)
    recalibration_samples: int = 1024

    provides: ClassVar[frozenset[Condition]] = frozenset({Condition.TRAINED})

    @property
    def requires(self) -> frozenset[Condition]:
        """Training data, and labels and a loss unless the loss is distillation alone."""
        if self.options.distill == 1:
            return frozenset({Condition.CALIBRATION})
        return frozenset({Condition.CALIBRATION, Condition.LABELS, Condition.GRADIENTS})

    def decide(self, network: Network, task: Task, progress: Progress) -> Plan:
        """Say how the weights will be trained; the graph itself stays as it is."""
        return self._planned(self.options, "")

    def _planned(self, options: TuneOptions, why: str) -> Plan:
        epochs = f"{options.epochs:g} epoch{'' if options.epochs == 1 else 's'}"
        summary = (
            f"trains for {epochs}{why} with {options.optimizer}, peak learning rate "
            f"{options.lr:g}, distillation share {options.distill:g}"
        )
        return Plan(type(self).__name__, asdict(replace(self, options=options)), (), summary)

    def apply(
        self,
        network: Network,
        plan: Plan,
        task: Task,
        progress: Progress | None = None,
        clock: Clock = time.monotonic,
        seconds: float | None = None,
    ) -> Network:
        """Train a copy of `network`. Its history says for how long it was trained, which is less
        than planned if the time was over, or if `patience` was.

        Args:
            network: the network, which stays unchanged.
            plan: what `plan` returned.
            task: its data and its loss.
            progress: called after each step with a line of text and the share that is done.
            clock: returns seconds since some moment.
            seconds: end the training after so many seconds of that clock; None for no limit.
        """
        if self.recalibration_samples:
            network = recalibrate(network, first(task.train, self.recalibration_samples))
        tuned, epochs = train(network, task, self.options, progress, clock, seconds)
        planned = self.options.epochs
        if epochs < WHOLE * planned:
            done = replace(self.options, epochs=float(f"{epochs:.3g}"))
            plan = self._planned(done, f" of {planned:g}")
        tuned.history = (*network.history, replace(plan))
        return tuned
