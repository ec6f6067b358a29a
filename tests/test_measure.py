"""Measuring: bounds by hand, ratios of known loads, NaN never equal."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
import torch

from penjing.errors import InputError
from penjing.measure import costs, scores
from penjing.measure.latency import compare
from penjing.measure.parity import parity
from penjing.network import capture
from penjing.task import ACCURACY, Metric
from tests.reference_networks import build


def test_no_disagreement_bounds_the_drop_as_tango_says() -> None:
    z = 1.6448536269514722
    found = scores.drop(np.ones(400), np.ones(400))
    assert found.drop == 0
    assert math.isclose(found.bound, 100 * z * z / (400 + z * z), rel_tol=1e-6)


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


def test_chance() -> None:
    targets = np.repeat(np.arange(10), 50)
    lucky = (np.arange(500) % 10 == 0).astype(float)
    assert scores.is_at_chance(lucky, targets)
    assert not scores.is_at_chance(np.ones(500), targets)


class Burn:
    """A session that takes a known amount of work."""

    def __init__(self, work: int) -> None:
        self.x, self.work = np.ones(20_000), work

    def run(self, inputs: Any) -> Any:
        for _ in range(self.work):
            self.x.sum()
        return inputs


def test_the_baseline_has_ratio_one_and_twice_the_work_is_slower() -> None:
    found = compare({"a": Burn(5), "b": Burn(15)}, np.zeros(1), "a", seconds=0.5)
    assert found["a"].ratio == 1.0
    assert found["a"].verdict == "no difference"
    assert found["b"].verdict == "slower"
    assert found["b"].ratio_low < found["b"].ratio < found["b"].ratio_high


def test_comparing_comes_to_an_end_on_a_disturbed_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "thread_time", lambda: 0.0)
    found = compare({"a": Burn(5)}, np.zeros(1), "a", seconds=0.05)
    assert found["a"].disturbed


class Constant:
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
    with pytest.raises(InputError, match=r"'mean' gave shape \(\) for 4 samples.*shape \(4,\)"):
        scores.score(Constant(0), batches, Metric("mean", lambda outputs, _: outputs.mean()))
    with pytest.raises(InputError, match="'bad' raised ZeroDivisionError"):
        scores.score(Constant(0), batches, Metric("bad", lambda *_: 1 / 0))
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
