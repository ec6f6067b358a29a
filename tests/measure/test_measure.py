"""Measuring: bounds by hand, ratios of known loads, NaN never equal."""

from __future__ import annotations

import itertools
import math
import time
from typing import Any

import numpy as np
import pytest
import torch

from penjing.contract import Latency
from penjing.errors import InputError
from penjing.measure import costs, scores
from penjing.measure.bounds import least_samples, upper_bound
from penjing.measure.latency import compare
from penjing.measure.parity import parity
from penjing.network import capture
from penjing.tasks.metrics import ACCURACY, Metric
from tests.reference_networks import build


@pytest.mark.parametrize("n", [1, 2, 30, 270, 450, 10_000])
def test_where_nothing_was_lost_the_bound_is_what_nobody_would_have_seen(n: int) -> None:
    unseen = 1 - 0.05 ** (1 / n)
    found = scores.drop(np.ones(n), np.ones(n))
    assert found.drop == 0
    assert 100 * unseen <= found.bound < 100.6 * unseen
    half = scores.drop(np.full(n, 0.5), np.full(n, 0.5))  # of a metric of real numbers
    assert math.isclose(half.bound, found.bound / 2)


def test_of_losses_alone_the_bound_is_clopper_and_pearsons() -> None:
    for n, lost in ((30, 1), (30, 29), (450, 3), (10_000, 100)):
        bound = upper_bound(np.array([0.0, 1.0]), np.array([[n - lost, lost]]), 1.0, 0.95)[0]
        fewer = sum(math.comb(n, k) * bound**k * (1 - bound) ** (n - k) for k in range(lost + 1))
        assert 0.0475 < fewer < 0.05002


@pytest.mark.parametrize("n", [30, 60, 270, 1000, 10_000])
def test_whatever_may_be_drawn_of_losses_and_wins_the_bound_is_wrong_one_time_in_twenty(
    n: int,
) -> None:
    most = min(n, 70)
    lost, won = (one.ravel() for one in np.indices((most + 1, most + 1)))
    lost, won = lost[lost + won <= n], won[lost + won <= n]
    counts = np.stack([won, n - lost - won, lost], axis=1)
    bounds = upper_bound(np.array([-1.0, 0.0, 1.0]), counts, 1.0, 0.95)
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    ways = factorials[n] - factorials[counts].sum(axis=1)
    shares = np.array([1e-3, 0.02, 0.1, 0.5, 1, 2, 3, 4.5, 7, 10, 14, 20, 29]) / max(n, 60)
    worst = 0.0
    for a, b in itertools.product(shares, shares):
        drawn = np.exp(ways + counts @ np.log([b, 1 - a - b, a]))
        worst = max(worst, float(drawn[bounds < a - b].sum()))
    assert 0.03 < worst <= 0.05


@pytest.mark.parametrize("n", [30, 100, 450, 3000])
@pytest.mark.parametrize("kind", ["rare", "skewed", "smooth"])
def test_the_bound_holds_for_real_numbers_of_any_shape(n: int, kind: str) -> None:
    draw = np.random.default_rng(n)
    values = {
        "rare": np.array([-0.01, 0.0, 0.9]),  # a few huge losses that few samples show
        "skewed": np.exp(np.linspace(-3, 3, 40)) / 100,
        "smooth": np.linspace(-0.2, 0.2, 41),
    }[kind]
    shares = {
        "rare": np.array([0.2, 0.78, 0.02]),
        "skewed": np.exp(-0.5 * np.linspace(-3, 3, 40) ** 2),
        "smooth": np.exp(-0.5 * np.linspace(-4, 4, 41) ** 2),
    }[kind]
    shares = shares / shares.sum()
    counts = draw.multinomial(n, shares, size=4000)
    missed = (upper_bound(values, counts, 1.0, 0.95) < values @ shares).mean()
    assert missed <= 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / 4000)


@pytest.mark.parametrize(("lost", "won"), [(0, 5), (5, 0), (12, 7), (40, 40)])
def test_the_bound_exceeds_the_drop_and_shrinks_with_samples(lost: int, won: int) -> None:
    def pair(times: int) -> tuple[np.ndarray, np.ndarray]:
        original = np.ones(300 * times)
        candidate = np.ones(300 * times)
        candidate[: lost * times] = 0
        original[300 * times - won * times :] = 0
        return original, candidate

    small, large = scores.drop(*pair(1)), scores.drop(*pair(10))
    assert math.isclose(small.drop, 100 * (lost - won) / 300)
    assert small.drop < large.bound < small.bound


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.9992])
def test_the_least_samples_are_just_enough(confidence: float) -> None:
    n = least_samples(0.01, 1.0, confidence)
    assert n is not None
    assert scores.drop(np.ones(n), np.ones(n), confidence).bound <= 1.0
    assert scores.drop(np.ones(n - 1), np.ones(n - 1), confidence).bound > 1.0
    assert n < 1.01 * math.log(1 - confidence) / math.log(0.99) + 1


def test_chance() -> None:
    targets = np.repeat(np.arange(10), 50)
    lucky = (np.arange(500) % 10 == 0).astype(float)
    assert scores.is_at_chance(float(lucky.mean()), targets)
    assert not scores.is_at_chance(1.0, targets)


class Clock:
    """Time that passes only when something runs, so that no test depends on the machine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, share_of_processor: float = 1.0) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(time, "thread_time", lambda: self.now * share_of_processor)


class Takes:
    """A session that takes a known time, give or take a tenth, and now and then three times it."""

    inputs = ()

    def __init__(self, clock: Clock, seconds: float, seed: int) -> None:
        self.clock, self.seconds, self.draw = clock, seconds, np.random.default_rng(seed)

    def run(self, inputs: Any) -> Any:
        factor = 1 + 0.1 * self.draw.standard_normal()
        self.clock.now += self.seconds * factor * (3 if self.draw.random() < 0.03 else 1)
        return inputs


def _ratios(monkeypatch: pytest.MonkeyPatch, slower_by: float) -> list[Latency]:
    found = []
    for seed in range(100):
        clock = Clock(monkeypatch)
        sessions = {
            "a": Takes(clock, 1e-3, 2 * seed), "b": Takes(clock, 1e-3 * slower_by, 2 * seed + 1),
        }  # fmt: skip
        found.append(compare(sessions, np.zeros(1), "a", seconds=2.0, seed=seed)["b"])
    return found


def test_of_a_hundred_comparisons_with_itself_none_finds_a_difference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert {one.verdict for one in _ratios(monkeypatch, 1.0)} == {"no difference"}


def test_a_slow_down_of_a_twentieth_is_found_and_sized(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _ratios(monkeypatch, 1.05)
    assert sum(one.verdict == "slower" for one in found) >= 95
    assert sum(one.ratio_low < 1.05 < one.ratio_high for one in found) >= 95


def test_the_baseline_has_ratio_one_and_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    found = compare({"a": Takes(clock, 2e-3, 0)}, np.zeros(1), "a", seconds=1.0)["a"]
    assert (found.ratio, found.ratio_low, found.ratio_high) == (1.0, 1.0, 1.0)
    assert found.verdict == "no difference"
    assert not found.disturbed
    assert math.isclose(found.latency_ms, 2.0, rel_tol=0.02)
    assert 2.1 < found.p90_ms < 2.5


def test_comparing_comes_to_an_end_on_a_disturbed_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, share_of_processor=0.5)
    assert compare({"a": Takes(clock, 1e-3, 0)}, np.zeros(1), "a", seconds=0.5)["a"].disturbed


class Constant:
    inputs = ()

    def __init__(self, value: float) -> None:
        self.value = value

    def run(self, inputs: Any) -> Any:
        return np.full((len(inputs), 10), self.value, np.float32)


def test_nan_is_never_equal() -> None:
    model, x = build("plain_cnn")
    network = capture(model, x)
    found = parity(network, Constant(math.nan), [(x, torch.zeros(4))])
    assert found.max_difference == math.inf
    assert found.samples == 4


def test_a_metric_must_give_one_score_per_sample() -> None:
    batches = [(torch.zeros(4, 10), torch.zeros(4, dtype=torch.long))]
    with pytest.raises(InputError, match=r"'mean' returned shape \(\) for 4.*shape \(4,\)"):
        scores.score(Constant(0), batches, Metric("mean", lambda outputs, _: outputs.mean()))
    with pytest.raises(InputError, match="'bad' raised ZeroDivisionError"):
        scores.score(Constant(0), batches, Metric("bad", lambda *_: np.ones(1 // 0)))
    nan = scores.score(Constant(math.nan), batches, ACCURACY)
    assert nan.tolist() == [0.0] * 4


def test_macs_of_the_plain_cnn_by_hand() -> None:
    model, x = build("plain_cnn")
    found = {one.layer: one for one in costs.costs(capture(model, x)) if one.macs}
    assert found["conv1"].macs == 16 * 3 * 9 * 32 * 32
    assert found["conv2"].macs == 32 * 16 * 9 * 16 * 16
    assert found["fc1"].macs == 2048 * 128
    assert found["fc1"].params == 2048 * 128 + 128
    assert costs.peak_activation_bytes(capture(model, x)) == 4 * 2 * 16 * 32 * 32
