"""Why the answer isn't faster: the lines name a file that is, and what they ask for is enough."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest

from penjing.contract import Drop, Latency, Measurement
from penjing.passes import Pass, PruneChannels, Quantize, Tune
from penjing.trials.candidate import Candidate
from penjing.trials.judgement.next_faster import next_faster
from penjing.trials.result import Result
from penjing.trials.trial import ORIGINAL, Status, Trial


def _trial(
    title: str, ratio: float, lost: tuple[float, float], status: Status, passes: Sequence[Pass] = ()
) -> Trial:
    times = Latency(ratio, ratio, ratio, 0.98 * ratio, 1.02 * ratio, 20)
    figures = Measurement(file_bytes=1000, latency=times, drop=Drop(*lost, 0.95, 1000))
    recipe = (*passes, Quantize()) if title != ORIGINAL else ()
    return Trial(Candidate.of(recipe, "onnxruntime", "float32"), title, status, "", figures)


def _result(*trials: Trial, goal: str = "latency") -> Result:
    original = _trial(ORIGINAL, 1.0, (0, 0), Status.BASELINE)
    kept = [trial for trial in trials if trial.status == Status.KEPT]
    best = kept[0].key if kept else original.key
    return Result("t", "cpu", "m", goal, 1.0, 0.95, 0, {}, original, trials, best)


@pytest.mark.parametrize(
    ("lost", "passes", "said"),
    [
        ((0.5, 1.2), (), "about 2000 validation samples"),
        ((0.99, 1.9), (), "Tune behind Quantize"),
        ((1.5, 1.9), (PruneChannels(0.5),), "`strategy='joint'`"),
        ((1.5, 1.9), (Tune(),), "more time for training"),
    ],
)
def test_what_would_decide_it(lost: tuple[float, float], passes: Sequence[Pass], said: str) -> None:
    over = _trial("fast", 0.3, lost, Status.OVER_BUDGET, passes)
    first, second = next_faster(_result(over))
    assert "fast, in 0.30 of the answer's time" in first
    assert said in second
    if match := re.search(r"about (\d+) validation samples", second):
        margin = (lost[1] - lost[0]) * (1000 / int(match[1])) ** 0.5
        assert lost[0] + margin <= 1.0 + 1e-9  # with so many its bound would be within the budget


def test_the_one_with_the_smallest_bound_is_named() -> None:
    kept = _trial("kept", 0.6, (0.1, 0.5), Status.KEPT, (Tune(),))
    near = _trial("near", 0.4, (0.9, 1.3), Status.OVER_BUDGET)
    far = _trial("far", 0.3, (30, 33), Status.OVER_BUDGET, (Tune(), Tune()))
    assert "near" in next_faster(_result(kept, near, far))[0]


@pytest.mark.parametrize("goal", ["latency", "size"])
def test_nothing_is_said_if_nothing_is_faster(goal: str) -> None:
    kept = _trial("kept", 0.3, (0.1, 0.5), Status.KEPT, (Tune(),))
    slow = _trial("slow", 0.6, (2, 3), Status.OVER_BUDGET)
    assert next_faster(_result(kept, slow, goal=goal)) == ()


def test_what_has_another_reason_is_not_named() -> None:
    on_test = _trial("fast", 0.3, (0.4, 0.9), Status.OVER_ON_TEST)
    large = _trial("large", 0.3, (1.4, 1.9), Status.OVER_BUDGET)
    assert next_faster(_result(on_test)) == ()
    assert next_faster(replace(_result(large), max_kb=0.5)) == ()
