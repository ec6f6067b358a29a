"""Playing: fits in milliseconds, by an evaluator that says what it is told to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from penjing.contract import Drop, Json, Latency, Measurement
from penjing.measure.scores import Means, Scores
from penjing.network import Network, capture
from penjing.passes import Tune
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.search.options import FitOptions
from penjing.search.run import Run
from penjing.search.schedule import Schedule
from penjing.search.study import Strategy, Study
from penjing.search.ways import Way, Ways
from penjing.targets import this_machine
from penjing.tasks.task import Task
from penjing.trials.candidate import Candidate
from penjing.trials.contract import Pace, Probed, Sitting, Watch
from penjing.trials.judgement.promise import Promise
from penjing.trials.layers import Layers
from penjing.trials.ledger import Ledger
from penjing.trials.recipe import from_json
from penjing.trials.result import Result
from penjing.trials.trial import ORIGINAL, Extent, Proposal, Status, Trial
from penjing.tune.options import TuneOptions


@dataclass
class FakeEvaluator:
    """Files that were never made, whose figures hang on their titles alone.

    Attributes:
        ratio, drop: of a candidate, by its title.
        asked: the titles of all that was evaluated, in order.
    """

    ratio: Callable[[str], float]
    drop: Callable[[str], float] = lambda _: 0.0
    timing_seconds: float = 1.0
    scoring_seconds: float = 1.0
    travel_seconds: float = 0.0
    stretch: float = 1.0
    asked: list[str] = field(default_factory=list)
    promise: Promise = field(default_factory=lambda: Promise(1.0))

    def testing_seconds(self) -> float:
        return 1.0

    def baseline(self, watch: Watch) -> Trial:
        return self._trial(Proposal(Way(OnnxRuntime()).candidate(), ORIGINAL), Status.BASELINE)

    def original_scores(self) -> Scores:
        return Means(np.ones(1000))

    def settle(self, max_drop: float) -> Promise:
        return self.promise

    def hold_to(self, promise: Promise) -> None:
        self.promise = promise

    def evaluate(self, proposal: Proposal, watch: Watch) -> Trial:
        self.asked.append(proposal.title)
        if proposal.extent == Extent.SPEED:
            return self._trial(proposal, Status.NOT_TUNED)
        kept = self.drop(proposal.title) <= self.promise.max_drop
        return self._trial(proposal, Status.KEPT if kept else Status.OVER_BUDGET)

    def _trial(self, proposal: Proposal, status: Status) -> Trial:
        whole = proposal.extent == Extent.EVERYTHING
        lost = self.drop(proposal.title)
        figures = Measurement(
            file_bytes=round(1e6 * self.ratio(proposal.title)),
            peak_activation_bytes=round(1e5 * self.ratio(proposal.title)),
            latency=self._latency(proposal.title) if whole else None,
            drop=Drop(lost, lost, 0.95, 1000) if whole else None,
        )
        return Trial(
            proposal.candidate, proposal.title, status, "", figures, replaces=proposal.replaces
        )

    def _latency(self, title: str) -> Latency:
        ratio, spread = self.ratio(title), 0.0 if title == ORIGINAL else 0.02
        return Latency(ratio, ratio, ratio, ratio * (1 - spread), ratio * (1 + spread), 20)

    def has(self, trial: Trial) -> bool:
        return True

    def time(self, trials: Sequence[Trial], seconds: float) -> Sitting:
        return Sitting({trial.key: self._latency(trial.title) for trial in trials})

    def compare(self, trial: Trial, rival: Trial) -> Latency:
        return self._latency(trial.title)

    def slower_layers(self, trial: Trial, rival: Trial) -> list[str] | None:
        return None

    def sensitive_layers(self, trial: Trial) -> list[str]:
        return []

    def layers(self, trial: Trial, original: Trial) -> Layers:
        return Layers(notes=("nobody tells",))

    def profiler(self, trial: Trial) -> str:
        return "nobody"

    def probe(
        self, candidates: Sequence[Candidate], watch: Watch, timed: bool = True
    ) -> list[Probed]:
        raise AssertionError("nothing is probed")

    def made(self, recipe: Sequence[Json], watch: Watch) -> Network:
        return _small()

    @property
    def blind(self) -> Task:
        raise AssertionError("no data is read")

    def changes(self, recipe: Sequence[Json], watch: Watch) -> bool:
        return True

    def pace(self, recipe: Sequence[Json], training: TuneOptions, watch: Watch) -> Pace:
        return Pace(0.1, 10)

    def is_trained(self, recipe: Sequence[Json]) -> bool:
        return False

    def epochs_trained(self, recipe: Sequence[Json], watch: Watch) -> float:
        (step,) = from_json(recipe[-1:])
        assert isinstance(step, Tune)
        return step.options.epochs

    def test(self, trial: Trial, stage: str, watch: Watch) -> Scores:
        return Means(np.ones(1000))

    def notes(self, trial: Trial) -> tuple[str, ...]:
        return ()


@cache
def _small() -> Network:
    return capture(nn.Linear(4, 2), torch.zeros(2, 4))


@contextmanager
def played(
    folder: Path,
    strategy: Strategy,
    evaluator: FakeEvaluator,
    goal: str = "latency",
    **attributes: Any,
) -> Iterator[Run]:
    """A fit whose files nobody makes, from its begin to its end; with these attributes of its
    study."""
    ways = Ways(Way(OnnxRuntime()))
    original = Trial(ways.usual.candidate(), ORIGINAL, Status.BASELINE)
    result = Result("t", "cpu", "m", goal, 1.0, 0.95, 0, {}, original)
    ledger = Ledger.resumed(folder) or Ledger.begin(folder, result)
    schedule = Schedule(lambda: 0.0, math.inf, epochs=1)
    study = Study(this_machine(), ways, schedule, TuneOptions(), ledger, evaluator)
    study = replace(study, **attributes)
    targets = [(torch.zeros(1), torch.arange(1000) % 10)]
    run = Run(study, FitOptions(strategy=strategy), targets, lambda: None)
    run.run()
    yield run
    ledger.close()
