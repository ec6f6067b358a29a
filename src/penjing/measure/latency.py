"""Latency: candidates timed beside a baseline, in the same windows, so that ratios can be trusted.

A round times every session once, in random order; a window is the median of its runs. The ratio
of a candidate is the median over rounds of (its window / the baseline's window), with a bootstrap
interval. A window in which the thread got less processor time than wall time was disturbed by
other load, and its round is repeated.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from penjing.contract import Latency, Session

WARM_UP_RUNS = 10
WINDOW_SECONDS = 0.03
MOST_RUNS = 200
LEAST_ROUNDS = 15
DISTURBED_SHARE = 0.10
INDIFFERENCE = 0.01


@dataclass
class _Series:
    """What was timed of one session."""

    runs: int
    windows: list[float] = field(default_factory=list)
    samples: list[float] = field(default_factory=list)


def compare(
    sessions: Mapping[str, Session], inputs: Any, baseline: str, seconds: float = 5.0, seed: int = 0
) -> dict[str, Latency]:
    """Time all sessions on the same inputs, interleaved.

    Args:
        sessions: by name; each should use one thread unless the target says otherwise.
        inputs: one batch, as the sessions take it.
        baseline: the name whose ratio is 1.
        seconds: how long to measure, about; at least 15 rounds are made.
        seed: of the order within rounds and of the bootstrap.

    Returns:
        A `Latency` by name; times in milliseconds. The interval of a ratio is that of 99 %
        confidence, widened by 1 %, within which nothing is called a difference.
    """
    series = {name: _Series(_runs(session, inputs)) for name, session in sessions.items()}
    draw = random.Random(seed)
    end = time.perf_counter() + seconds
    patience = end + seconds
    rounds = taken_anyway = 0
    while rounds < LEAST_ROUNDS or time.perf_counter() < end:
        order = list(sessions)
        draw.shuffle(order)
        windows = {name: _window(sessions[name], inputs, series[name].runs) for name in order}
        if any(one is None for one in windows.values()):
            if time.perf_counter() < patience:
                continue
            taken_anyway += 1
            windows = {  # it stays disturbed: take what comes, and say so
                name: _window(sessions[name], inputs, series[name].runs, anyway=True)
                for name in order
            }
        rounds += 1
        for name, samples in windows.items():
            assert samples is not None
            series[name].windows.append(statistics.median(samples))
            series[name].samples += samples
    marked = taken_anyway > rounds // 4
    return {
        name: _summary(one, series[baseline], name == baseline, marked, seed)
        for name, one in series.items()
    }


def _runs(session: Session, inputs: Any) -> int:
    """Warm up, and find how many runs fill a window."""
    start = time.perf_counter()
    for _ in range(WARM_UP_RUNS):
        session.run(inputs)
    once = (time.perf_counter() - start) / WARM_UP_RUNS
    return max(3, min(MOST_RUNS, int(WINDOW_SECONDS / max(once, 1e-7))))


def _window(session: Session, inputs: Any, runs: int, anyway: bool = False) -> list[float] | None:
    """Seconds of each run, or None if other load took the processor away."""
    session.run(inputs)
    wall, own = time.perf_counter(), time.thread_time()
    samples = []
    for _ in range(runs):
        start = time.perf_counter()
        session.run(inputs)
        samples.append(time.perf_counter() - start)
    wall, own = time.perf_counter() - wall, time.thread_time() - own
    return samples if anyway or own >= (1 - DISTURBED_SHARE) * wall else None


def _summary(
    one: _Series, baseline: _Series, is_baseline: bool, disturbed: bool, seed: int
) -> Latency:
    samples = np.array(one.samples) * 1e3
    ratio = low = high = 1.0
    if not is_baseline:
        ratios = np.array(one.windows) / np.array(baseline.windows)
        ratio = float(np.median(ratios))
        draw = np.random.default_rng(seed)
        medians = np.median(draw.choice(ratios, (2000, len(ratios))), axis=1)
        low, high = np.quantile(medians, [0.005, 0.995]).tolist()
        low, high = low * (1 - INDIFFERENCE), high * (1 + INDIFFERENCE)
    return Latency(
        latency_ms=float(np.median(samples)),
        p90_ms=float(np.quantile(samples, 0.9)),
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        windows=len(one.windows),
        disturbed=disturbed,
    )
