"""Figures of all samples: bounds that hold, and one line for what is no figure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from penjing.contract import Array
from penjing.errors import InputError
from penjing.measure.bounds import bootstrapped
from penjing.measure.scores import Means, Pooled, judge, judged
from penjing.tasks.metrics import Metric, joined, scored


def _nothing(*_: Any) -> Array:
    raise AssertionError("what was kept is given")


def _pooled(over: Callable[[Any], float], kept: Any, higher: bool = True) -> Pooled:
    return Pooled(Metric("mine", _nothing, over, higher), kept)


def _of_two(kept: Array) -> float:
    """A ratio of sums, as a rate of wrong words is."""
    return float(kept[:, 0].sum() / kept[:, 1].sum())


def _counts(seed: int, samples: int = 300) -> Array:
    draw = np.random.default_rng(seed)
    words = draw.integers(1, 20, samples)
    return np.stack([draw.binomial(words, 0.9), words], axis=1)


def test_a_file_that_answers_alike_loses_nothing() -> None:
    mine, same = (_pooled(_of_two, _counts(0)) for _ in range(2))
    assert (mine.lost(same).drop, mine.lost(same).bound) == (0.0, 0.0)
    assert mine.lost(same).samples == 300


@pytest.mark.parametrize("higher", [True, False])
def test_the_bound_lies_beyond_the_drop_and_grows_with_confidence(higher: bool) -> None:
    mine, worse = (_pooled(_of_two, _counts(seed), higher) for seed in (0, 1))
    drops = [mine.lost(worse, confidence) for confidence in (0.5, 0.9, 0.95, 0.999)]
    sign = 100 if higher else -100
    assert drops[0].drop == pytest.approx(sign * (mine.figure - worse.figure))
    bounds = [drop.bound for drop in drops]
    assert bounds == sorted(bounds)
    assert bounds[1] > drops[0].drop


def test_a_lower_figure_may_be_the_better_one() -> None:
    more, fewer = np.array([[3, 10]] * 60), np.array([[2, 10]] * 60)
    for higher, lost in ((True, 10.0), (False, -10.0)):
        first, second = (_pooled(_of_two, kept, higher) for kept in (more, fewer))
        assert first.lost(second).drop == pytest.approx(lost)


def test_a_mean_given_as_a_figure_is_bounded_as_a_mean_is() -> None:
    """On many samples both rules agree: a bootstrap's bound, and that of a mean."""
    draw = np.random.default_rng(0)
    mine, theirs = draw.uniform(0.4, 1, 2000), draw.uniform(0.3, 1, 2000)
    pooled = _pooled(lambda kept: float(kept.mean()), mine)
    drop = pooled.lost(_pooled(lambda kept: float(kept.mean()), theirs))
    known = Means(mine).lost(Means(theirs))
    assert drop.drop == pytest.approx(known.drop)
    assert drop.bound - drop.drop == pytest.approx(known.bound - known.drop, rel=0.15)


def test_a_bound_holds_as_often_as_it_says() -> None:
    """The mean of skewed samples, whose true value is known."""
    draw, held = np.random.default_rng(0), 0
    for _ in range(300):
        x = draw.exponential(size=100)
        drawn = x[draw.integers(0, 100, (400, 100))].mean(1)
        without = np.array([np.delete(x, k).mean() for k in range(100)])
        held += bootstrapped(float(x.mean()), drawn, without, 0.9) >= 1.0
    assert 0.85 <= held / 300 <= 0.95


@pytest.mark.parametrize("lists", [True, False])
def test_samples_of_any_kind_are_kept(lists: bool) -> None:
    kept = [[(0.9, 1), (0.2, 0)], [], [(0.8, 1)]] * 30
    pooled = _pooled(lambda some: sum(len(boxes) for boxes in some) / len(some), kept)
    assert pooled.figure == 1.0
    assert pooled.lost(pooled).samples == 90
    parts = [np.ones((2, 3)), np.zeros((1, 3))]
    assert len(joined([list(part) for part in parts] if lists else parts)) == 3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda y, t: None, "returned None; with over, it must return something for each"),
        (lambda y, t: 3.0, "returned a float"),
        (lambda y, t: np.zeros(()), "returned one number for 4 samples"),
        (lambda y, t: y[:2], "returned 2 for 4 samples"),
        (lambda y, t: y * np.nan, "returned NaN or infinite values"),
        (lambda y, t: 1 // 0, "raised ZeroDivisionError"),
    ],
)
def test_what_is_kept_must_be_of_each_sample(given: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        scored(Metric("mine", given, over=len), np.ones((4, 2)), np.ones(4))


@pytest.mark.parametrize(
    ("over", "words"),
    [
        (
            lambda kept: kept.mean(0),
            r"returned an array of shape \(2,\); it must return one number",
        ),
        (lambda kept: "good", "returned 'good'; it must return one number"),
        (lambda kept: None, "is nan for 60 samples"),
        (lambda kept: 1 // 0, "raised ZeroDivisionError"),
        (lambda kept: float("nan"), "is nan for 60 samples; it must be a finite number"),
    ],
)
def test_a_figure_is_one_finite_number(over: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        _pooled(over, np.ones((60, 2)))


def test_a_figure_that_few_draws_have_is_refused() -> None:
    """As an area under a curve with a single positive."""

    def over(kept: Array) -> float:
        return float(kept.mean()) if len(np.unique(kept)) == 60 else float("nan")

    pooled = _pooled(over, np.arange(60.0))
    with pytest.raises(InputError, match="NaN for most samples that are drawn again from 60"):
        pooled.lost(pooled)


def test_batches_of_other_shapes_need_a_list() -> None:
    with pytest.raises(InputError, match="return a list of arrays instead"):
        joined([np.ones((2, 3)), np.ones((2, 4))])


def test_a_file_is_judged_over_all_batches() -> None:
    class Twice:
        def run(self, inputs: Array) -> Array:
            return 2 * inputs

    spread = Metric("spread", lambda y, t: y, over=lambda kept: float(kept.max() - kept.min()))
    batches = [(torch.tensor([1.0, 2.0]), torch.zeros(2)), (torch.tensor([5.0]), torch.zeros(1))]
    assert judge(Twice(), batches, spread).figure == 8.0  # type: ignore[arg-type]
    assert isinstance(judged(Metric("mean", _nothing), [np.ones(3)]), Means)
