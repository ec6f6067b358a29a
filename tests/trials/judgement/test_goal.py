"""Goals: one figure or several with weights, and what is best by them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penjing.contract import Drop, Latency, Measurement
from penjing.errors import InputError
from penjing.trials.judgement.aim import Aim
from penjing.trials.judgement.choice import choose
from penjing.trials.judgement.goal import canonical, share, weights_of
from penjing.trials.trial import Trial
from tests import fits

MEGABYTE = 1_000_000


def _trial(title: str, time: float, size: float, memory: float, spread: float = 0.0) -> Trial:
    latency = Latency(time, time, time, time - spread, time + spread, 20)
    figures = Measurement(
        file_bytes=round(size * MEGABYTE), peak_activation_bytes=round(memory * MEGABYTE),
        latency=latency, drop=Drop(0.0, 0.1, 0.95, 1000),
    )  # fmt: skip
    return fits.trial(title, measurement=figures, status="kept")


ORIGINAL = replace(
    _trial("original", 1.0, 1.0, 1.0), status=fits.trial("o", status="baseline").status
)
FAST, SMALL, LEAN = (
    _trial("fast", 0.3, 0.9, 0.8), _trial("small", 0.8, 0.2, 0.9), _trial("lean", 0.9, 0.8, 0.2)
)  # fmt: skip


@pytest.mark.parametrize(
    ("goal", "best"),
    [
        ("latency", "fast"),
        ("size", "small"),
        ("memory", "lean"),
        ("latency=5,size=1", "fast"),
        ("latency=1,size=5", "small"),
        ("latency=1,size=1,memory=9", "lean"),
    ],
)
def test_the_best_is_best_by_the_goal(goal: str, best: str) -> None:
    chosen, why = choose(ORIGINAL, [FAST, SMALL, LEAN], Aim(goal))
    assert chosen.title == best
    assert "3 candidates that keep the budget" in why


def test_a_share_is_the_weighted_mean() -> None:
    assert share("latency=2,size=1", SMALL, ORIGINAL) == pytest.approx((2 * 0.8 + 0.2) / 3)
    untimed = replace(SMALL, measurement=replace(SMALL.measurement, latency=None))
    assert share("latency=2,size=1", untimed, ORIGINAL) is None
    assert share("size", untimed, ORIGINAL) == pytest.approx(0.2)


def test_a_gain_within_the_interval_is_none() -> None:
    """It is 1 % better by the median, but may as well be worse."""
    unsure = _trial("unsure", 0.985, 1.0, 1.0, spread=0.1)
    for goal in ("latency", "latency=2,size=1"):
        chosen, _ = choose(ORIGINAL, [unsure], Aim(goal))
        assert chosen.title == "original"


@pytest.mark.parametrize("goal", ["latency=7", "latency = 7", "latency"])
def test_one_figure_needs_no_weight(goal: str) -> None:
    assert canonical(goal) == "latency"
    assert dict(weights_of(goal)) == {"latency": 1.0}


@pytest.mark.parametrize(
    "goal", ["", "speed", "latency,latency", "size=0", "size=-1", "size=x", "size=inf", "size=nan",
             "latency=1,", "latency=1;size=2", None],
)  # fmt: skip
def test_what_is_no_goal_is_refused_in_a_line(goal: str) -> None:
    with pytest.raises(InputError, match="`goal` must be latency, size or memory") as error:
        weights_of(goal)
    assert "\n" not in str(error.value)
