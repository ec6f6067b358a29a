"""Strategies: played in milliseconds by an evaluator that says what it is told to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from penjing.contract import Array, Drop, Json, Latency, Measurement
from penjing.errors import InputError
from penjing.passes import Quantize
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.search.options import FitOptions
from penjing.search.run import Run
from penjing.search.schedule import Schedule
from penjing.search.strategies import Quick, find_strategy
from penjing.search.study import Proposals, Strategy, Study
from penjing.search.ways import Way, Ways
from penjing.targets import this_machine
from penjing.trials.contract import Pace, Sitting, Watch
from penjing.trials.judgement.promise import Promise
from penjing.trials.ledger import Ledger
from penjing.trials.result import Result
from penjing.trials.trial import ORIGINAL, Extent, Proposal, Status, Trial
from penjing.tune.options import TuneOptions

EXAMPLE = Path(__file__).parents[3] / "examples" / "my_strategy.py"


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

    def original_scores(self) -> Array:
        return np.ones(1000)

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

    def profiler(self, trial: Trial) -> str:
        return "nobody"

    def changes(self, recipe: Sequence[Json], watch: Watch) -> bool:
        return True

    def pace(self, recipe: Sequence[Json], training: TuneOptions, watch: Watch) -> Pace:
        return Pace(0.1, 10)

    def is_trained(self, recipe: Sequence[Json]) -> bool:
        return False

    def test(self, trial: Trial) -> Array:
        return np.ones(1000)

    def notes(self, trial: Trial) -> tuple[str, ...]:
        return ()


@contextmanager
def played(
    folder: Path, strategy: Strategy, evaluator: FakeEvaluator, goal: str = "latency"
) -> Iterator[Run]:
    """A fit whose files nobody makes, from its begin to its end."""
    ways = Ways(Way(OnnxRuntime()))
    original = Trial(ways.usual.candidate(), ORIGINAL, Status.BASELINE)
    result = Result("t", "cpu", "m", goal, 1.0, 0.95, 0, {}, original)
    ledger = Ledger.resumed(folder) or Ledger.begin(folder, result)
    schedule = Schedule(lambda: 0.0, math.inf, epochs=1)
    study = Study(this_machine(), ways, schedule, TuneOptions(), ledger, evaluator)
    targets = [(torch.zeros(1), torch.arange(1000) % 10)]
    run = Run(study, FitOptions(strategy=strategy), targets, lambda: None)
    run.run()
    yield run
    ledger.close()


def test_quick_is_played_without_a_file(tmp_path: Path) -> None:
    ratios = {"original": 1.0, "int8": 0.8, "prune 25 %": 0.9, "prune 25 % + int8": 0.7}
    evaluator = FakeEvaluator(lambda title: ratios.get(title, 0.6))
    with played(tmp_path, Quick(), evaluator) as run:
        titles = [trial.title for trial in run.result.everything]
    assert titles[:4] == list(ratios)
    assert run.result.finished
    assert run.result.answer.status == Status.KEPT
    assert [evaluator.asked.count(title) for title in ("int8", "prune 25 %")] == [1, 2]


def test_what_the_ledger_has_is_not_asked_again(tmp_path: Path) -> None:
    first, second = (FakeEvaluator(lambda title: 0.5) for _ in range(2))
    with played(tmp_path, Quick(), first) as run:
        rows = run.result.trials
    with played(tmp_path, Quick(), second) as again:
        assert [trial.key for trial in again.result.trials] == [trial.key for trial in rows]
    assert first.asked
    assert not second.asked


@pytest.mark.parametrize("fewest", [2, 3, 5, 8, 9])
def test_the_examples_strategy_finds_the_fewest_bits(tmp_path: Path, fewest: int) -> None:
    evaluator = FakeEvaluator(
        lambda title: 1.0 if title == ORIGINAL else int(title.split()[0]) / 10,
        lambda title: 0.0 if title == ORIGINAL or int(title.split()[0]) >= fewest else 3.0,
    )
    strategy = find_strategy(str(EXAMPLE))
    with played(tmp_path, strategy, evaluator, "size") as run:
        answer = run.result.chosen
    assert answer == (f"{fewest} bits" if fewest <= 8 else ORIGINAL)
    assert len(evaluator.asked) <= 3


def test_a_users_strategy_that_raises_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(
        "class Own:\n    def propose(self, study):\n        yield []\n        1 / 0\n\n"
        "strategy = Own()\n"
    )
    evaluator = FakeEvaluator(lambda title: 1.0)
    line, strategy = r"own\.py raised ZeroDivisionError at own\.py:4", find_strategy(str(path))
    with pytest.raises(InputError, match=line), played(tmp_path, strategy, evaluator):
        pass


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("slow", "no strategy 'slow'; wanted 'quick', a file such as mystrategy.py"),
        ("none.py", "strategy file none.py doesn't exist"),
        ("tests.bad_tasks:good", "is a Task; wanted an object with a method propose"),
    ],
)
def test_what_is_no_strategy_is_refused(text: str, line: str) -> None:
    with pytest.raises(InputError, match=line):
        find_strategy(text)


def test_what_was_made_and_not_timed_is_timed_and_not_made_again(tmp_path: Path) -> None:
    class Killed(FakeEvaluator):
        def time(self, trials: Sequence[Trial], seconds: float) -> Sitting:
            raise ZeroDivisionError

    class Probes:
        def propose(self, study: Study) -> Proposals:
            yield [study.only_speed(study.proposal("probe", Quantize(), must=True))]

    with pytest.raises(ZeroDivisionError), played(tmp_path, Probes(), Killed(lambda _: 0.5)):
        pass
    second = FakeEvaluator(lambda _: 0.5)
    with played(tmp_path, Probes(), second) as run:
        assert run.result.find("probe").latency is not None
    assert not second.asked


def test_a_candidate_that_is_proposed_twice_is_tried_once(tmp_path: Path) -> None:
    class Twice:
        def propose(self, study: Study) -> Proposals:
            yield [study.proposal("once", Quantize(), must=True)]
            yield [study.proposal("again", Quantize(), must=True)]

    evaluator = FakeEvaluator(lambda title: 0.5)
    with played(tmp_path, Twice(), evaluator) as run:
        assert [trial.title for trial in run.result.trials] == ["once"]
    assert evaluator.asked == ["once"]
