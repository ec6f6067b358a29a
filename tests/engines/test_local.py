"""Engines: the trials of all proposals, in their order, each as soon as it is there."""

from __future__ import annotations

from typing import cast

import pytest

from penjing.engines.local import Local
from penjing.trials.candidate import Candidate
from penjing.trials.contract import Evaluator, Watch
from penjing.trials.trial import Proposal, Status, Trial

PROPOSALS = [
    Proposal(Candidate(({"method": name},), "onnxruntime", "float32"), name) for name in "abc"
]


class _Told:
    """An evaluator that does nothing but keep what it was asked for."""

    def __init__(self, fails_at: str = "") -> None:
        self.asked: list[str] = []
        self.watches: list[Watch] = []
        self.fails_at = fails_at

    def evaluate(self, proposal: Proposal, watch: Watch) -> Trial:
        self.asked.append(proposal.title)
        self.watches.append(watch)
        if proposal.title == self.fails_at:
            raise ZeroDivisionError
        return Trial(proposal.candidate, proposal.title, Status.KEPT)


def test_trials_come_one_by_one_in_the_order_of_their_proposals() -> None:
    told, watch = _Told(), Watch(print)
    trials = Local(cast(Evaluator, told)).run(PROPOSALS, watch)
    assert not told.asked  # nothing is evaluated before it is wanted
    for number, (proposal, trial) in enumerate(zip(PROPOSALS, trials, strict=False), start=1):
        assert trial.key == proposal.key
        assert told.asked == ["a", "b", "c"][:number]
    assert told.watches == [watch] * 3


def test_a_bug_goes_through_and_what_came_before_it_is_there() -> None:
    told = _Told(fails_at="b")
    trials = Local(cast(Evaluator, told)).run(PROPOSALS, Watch(print))
    assert next(trials).title == "a"
    with pytest.raises(ZeroDivisionError):
        next(trials)
    assert told.asked == ["a", "b"]
