"""Ternary weights: trained where their file would be the smallest, and only there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from penjing.search.strategies.beginning import begun
from penjing.search.strategies.ternary import Ternary
from penjing.search.study import Proposals, Study
from penjing.trials.candidate import Candidate
from penjing.trials.contract import Probed, Watch
from tests.search.strategies.playing import FakeEvaluator, played


class Alone:
    """A search that has nothing else."""

    def propose(self, study: Study) -> Proposals:
        pace, _ = yield from begun(study, 2)
        assert pace is not None
        yield from Ternary(study, pace).run()


@dataclass
class Small(FakeEvaluator):
    """Its ternary files take this share of the original's bytes, and all of its time."""

    share: float = 0.06
    probed: int = 0

    def probe(
        self, candidates: Sequence[Candidate], watch: Watch, timed: bool = True
    ) -> list[Probed]:
        self.probed += len(candidates)
        return [Probed({"size": self.share} | ({"latency": 1.0} if timed else {}))]


def _evaluator(lost: float = 0.5, share: float = 0.06) -> Small:
    def ratio(title: str) -> float:
        return share if title.startswith("ternary") else 0.25 if "int8" in title else 1.0

    return Small(ratio, lambda title: lost if title.startswith("ternary") else 0.1, share=share)


@pytest.mark.parametrize(("lost", "trainings"), [(0.5, 1), (1.5, 2), (9.0, 1)])
def test_it_is_trained_once_and_once_more_if_it_is_near_the_budget(
    tmp_path: Path, lost: float, trainings: int
) -> None:
    first, second = _evaluator(lost), _evaluator(lost)
    with played(tmp_path, Alone(), first, "size") as run:
        trials = [trial for trial in run.result.trials if trial.title.startswith("ternary")]
        recipes = [[step["method"] for step in trial.candidate.recipe] for trial in trials]
        assert recipes == [["Ternarize"] + ["Tune"] * (turn + 1) for turn in range(trainings)]
        assert run.result.chosen == ("ternary weights" if lost <= 1 else "int8")
    with played(tmp_path, Alone(), second, "size") as again:
        assert again.result.trials == run.result.trials
    assert first.probed
    assert not second.probed
    assert not second.asked


@pytest.mark.parametrize(
    ("goal", "share"), [("latency", 0.06), ("latency=9,size=1", 0.06), ("size", 0.25)]
)
def test_it_is_not_trained_where_it_gains_nothing(tmp_path: Path, goal: str, share: float) -> None:
    evaluator = _evaluator(share=share)
    with played(tmp_path, Alone(), evaluator, goal) as run:
        assert run.result.chosen == "int8"
        assert not any(title.startswith("ternary") for title in evaluator.asked)
