"""Strategies: played in milliseconds by an evaluator that says what it is told to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from penjing.errors import InputError
from penjing.passes import Quantize
from penjing.search.strategies import Quick, find_strategy
from penjing.search.study import Proposals, Study
from penjing.trials.contract import Sitting
from penjing.trials.trial import ORIGINAL, Status, Trial
from tests.search.strategies.playing import FakeEvaluator, played

EXAMPLE = Path(__file__).parents[3] / "examples" / "my_strategy.py"


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
        ("slow", "no strategy 'slow'; wanted 'joint', 'quick', a file such as mystrategy.py"),
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
