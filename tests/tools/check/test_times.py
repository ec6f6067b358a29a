"""Times: chance and other programs raise no alarm, and a file that is slower does."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from penjing.contract import Latency
from penjing.measure.latency import summaries
from penjing.tools.check.times import timed


def _latency(ratio: float, disturbed: bool = False, spread: float = 0.02) -> Latency:
    low, high = ratio * (1 - spread), ratio * (1 + spread)
    return Latency(ratio, ratio, ratio, low, high, 15, disturbed)


FINE, SLOW = _latency(1.0), _latency(1.5)
NOISY_FINE, NOISY_SLOW = _latency(1.0, disturbed=True), _latency(1.5, disturbed=True)
WIDE = _latency(1.2, spread=0.3)


@pytest.mark.parametrize(
    ("measured", "broken", "times"),
    [
        ([FINE], False, 1),
        ([WIDE], False, 1),  # its interval reaches below the limit
        ([SLOW, SLOW, SLOW], True, 3),
        ([SLOW, FINE], False, 2),
        ([SLOW, SLOW, FINE], False, 3),
        ([NOISY_FINE, FINE], False, 2),
        ([NOISY_FINE, SLOW, SLOW], True, 3),  # two that are undisturbed outweigh it
        ([NOISY_SLOW, NOISY_SLOW, FINE], False, 3),
        ([NOISY_SLOW, NOISY_FINE, SLOW], False, 3),
        ([NOISY_SLOW, NOISY_SLOW, NOISY_SLOW], True, 3),
        ([NOISY_SLOW, NOISY_FINE, NOISY_SLOW], False, 3),
    ],
)
def test_an_alarm_must_be_confirmed(measured: list[Latency], broken: bool, times: int) -> None:
    left = list(measured)
    told = timed(lambda _: left.pop(0), 1.0)
    assert (told.broken, len(told.measured), left) == (broken, times, [])
    assert (told.shown.ratio_low > 1.0) is broken


def test_each_measurement_has_a_seed_of_its_own() -> None:
    seeds: list[int] = []

    def measure(seed: int) -> Latency:
        seeds.append(seed)
        return SLOW

    timed(measure, 1.0)
    assert len(set(seeds)) == 3


def _sittings(slower: float, draw: np.random.Generator) -> Iterator[Latency]:
    """Measurements on a machine where a window takes up to several times as long as another."""
    while True:
        noise = 1 + draw.exponential(0.5, (2, 15))
        windows = {"reference": noise[0], "file": slower * noise[1]}
        times = {name: {"windows": row, "samples": row} for name, row in windows.items()}
        yield summaries(times, "reference", bool(draw.integers(2)), 0)["file"]


@pytest.mark.parametrize(("slower", "alarms"), [(1.0, 0), (4.0, 50)])
def test_under_heavy_load_only_what_is_slower_raises_an_alarm(slower: float, alarms: int) -> None:
    sittings = _sittings(slower, np.random.default_rng(0))
    assert sum(timed(lambda _: next(sittings), 1.0).broken for _ in range(50)) == alarms
