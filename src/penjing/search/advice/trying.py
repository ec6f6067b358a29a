"""Trying: makes a recipe into a file, and learns its speed, its size and what it loses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch.utils import _pytree as pytree

from penjing.contract import POINTS, as_arrays
from penjing.measure import costs
from penjing.measure.footprint import footprint
from penjing.measure.judged import Judged, judge_answers
from penjing.measure.scores import Scores
from penjing.runtimes.contract import Runtime
from penjing.search.advice.outlook import CYCLES, HUNDREDTHS, MACS, TIME, Figures
from penjing.targets import Target
from penjing.tasks.data import cut, first
from penjing.tasks.targets import samples_in
from penjing.tasks.task import Batches, Task, as_call
from penjing.trials.candidate import Candidate
from penjing.trials.contract import Say
from penjing.trials.evaluation.files import Files, Loaded
from penjing.trials.evaluation.instruments import Instruments
from penjing.trials.evaluation.networks import Networks

SAMPLES = 1000
"""Held-out samples on which files are judged."""
SECONDS = 1.0
"""Of timing, for each file."""


@dataclass(frozen=True)
class Tried:
    """A file and what was found of it.

    Attributes:
        cost: its time beside the first file's, or its estimate (see
            `penjing.trials.evaluation.estimates.Estimating`), not yet divided.
    """

    file: Loaded
    cost: float
    figures: Figures


@dataclass
class Trying:
    """Tries candidates on a target, each beside the first file that could be made.

    Attributes:
        runtime: the target's first one that is installed here, set up for it.
        reference: the first file, of which times are shares; None before there is one.
    """

    task: Task
    target: Target
    runtime: Runtime
    networks: Networks
    files: Files
    instruments: Instruments
    seed: int = 0
    reference: Tried | None = None

    @cached_property
    def samples(self) -> Batches:
        """The held-out samples."""
        assert self.task.validation is not None
        return first(self.task.validation, SAMPLES)

    @property
    def count(self) -> int:
        """How many samples there are."""
        return sum(samples_in(targets) for _, targets in self.samples)

    @cached_property
    def original(self) -> Judged:
        """What the model itself answers, with which all files are compared."""

        def answers(inputs: Any) -> Any:
            args, kwargs = as_call(inputs)
            with torch.no_grad():
                return self.networks.original(*args, **kwargs)

        return self._judged(answers)

    @property
    def speed(self) -> str:
        """What stands for speed on this target."""
        if self.target.local:
            return TIME
        estimating = self.files.estimating
        return MACS if estimating is None or estimating.clock is None else CYCLES

    def tried(self, candidate: Candidate, say: Say) -> Tried:
        """Make the candidate's file, and learn what it is like.

        Raises:
            PenjingError: a pass can't be applied, or the runtime can't take the network.
        """
        runtime = self.files.runtime_of(candidate)
        network = self.networks.made(candidate.recipe, say)
        runtime.require_possible(network, self.target, candidate.floats)
        say("making the file", 1.0)
        folder = self.files.folder(candidate.key)
        file = self.files.written(candidate, candidate.key, network, folder)
        macs, params = costs.totals(network)
        say("judging the file", 1.0)
        answered = self._judged(lambda inputs: file.session.run(as_arrays(inputs)))
        cost, low, high, disturbed = self._cost(file)
        whole = self.reference.cost if self.reference else cost
        here = self.target.local
        units = {} if here else Counter(p.unit for p in runtime.placement(file.artifact))
        figures = Figures(
            speed=cost / whole, low=low / whole, high=high / whole, disturbed=disturbed,
            file_bytes=file.artifact.file_bytes, macs=macs,
            params=params,
            memory_bytes=footprint(network).value_bytes,
            lost=self._lost(answered.scores),
            unit=self.unit,
            loss=answered.loss - self.original.loss,
            placement=dict(units),
        )  # fmt: skip
        tried = Tried(file, cost, figures)
        self.reference = self.reference or tried
        return tried

    @property
    def unit(self) -> str:
        """Of what files lose, see `Figures.unit`."""
        return POINTS if self.task.metric.unit == POINTS else HUNDREDTHS

    def _lost(self, scores: Scores) -> float:
        whole = self.original.scores
        lost = whole.units_lost(scores)
        return lost if self.unit == POINTS else 100 * lost / max(abs(whole.figure), 1e-12)

    def _cost(self, file: Loaded) -> tuple[float, float, float, bool]:
        """What stands for its speed, with an interval where it was measured, and whether that was
        disturbed."""
        if self.target.local:
            if self.reference is None:
                return 1.0, 1.0, 1.0, False
            sessions = {"first": self.reference.file.session, "file": file.session}
            inputs = cut(as_arrays(self.task.example), 1)
            seconds = SECONDS * len(sessions)
            times = self.instruments.timer(sessions, inputs, "first", seconds, self.seed)["file"]
            return times.ratio, times.ratio_low, times.ratio_high, times.disturbed
        assert file.estimate is not None
        assert file.estimate.latency_ms is not None
        cost = file.estimate.latency_ms
        return cost, cost, cost, False

    def _judged(self, answers: Callable[[Any], Any]) -> Judged:
        """The scores and the loss of what is answered to the samples; see `judge_answers`."""
        return judge_answers(
            self.task, ((self._as_model(answers(inputs)), y) for inputs, y in self.samples)
        )

    def _as_model(self, outputs: Any) -> Any:
        """A file's outputs as the model gives them, which is what a loss expects."""
        leaves = [torch.as_tensor(leaf) for leaf in pytree.tree_leaves(outputs)]
        return self.networks.original.structured(leaves)
