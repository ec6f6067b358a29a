"""Latency: candidates timed together with a baseline, so that their ratios can be trusted.

A round times each session once, in random order. A session's window in a round is many runs, of
which the median counts. The ratio of a candidate is the median over rounds of (its window / the
baseline's window), with a bootstrap interval. If a thread gets less processor time than wall time
in a window, other load has disturbed it, and the round is repeated. `penjing.device.runner` makes
the rounds, on this machine as on a device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from penjing.contract import Latency, Session
from penjing.device.runner import interleave

INDIFFERENCE = 0.01


def compare(
    sessions: Mapping[str, Session], inputs: Any, baseline: str, seconds: float = 5.0, seed: int = 0
) -> dict[str, Latency]:
    """Time all sessions on the same inputs, interleaved.

    Args:
        sessions: the sessions by name. Each should use one thread.
        inputs: one batch, as the sessions take it.
        baseline: the name of the session whose ratio is 1.
        seconds: about how long to measure. There are at least 15 rounds.
        seed: the seed of the order within rounds, and of the bootstrap.

    Returns:
        A `Latency` for each name, see `summaries`.
    """
    calls = {name: partial(session.run, inputs) for name, session in sessions.items()}
    times, disturbed = interleave(calls, seconds, seed)
    return summaries(times, baseline, disturbed, seed)


def summaries(
    times: Mapping[str, Mapping[str, Sequence[float]]], baseline: str, disturbed: bool, seed: int
) -> dict[str, Latency]:
    """Summarize the times from `interleave` as a `Latency` for each name, in milliseconds.

    The interval of a ratio has 99 % confidence. It is widened by 1 %, because smaller differences
    don't count as differences.
    """
    return {
        name: _summary(timed, times[baseline], name == baseline, disturbed, seed)
        for name, timed in times.items()
    }


def _summary(
    timed: Mapping[str, Sequence[float]],
    baseline: Mapping[str, Sequence[float]],
    is_baseline: bool,
    disturbed: bool,
    seed: int,
) -> Latency:
    samples = np.array(timed["samples"]) * 1e3
    ratio = low = high = 1.0
    if not is_baseline:
        ratios = np.array(timed["windows"]) / np.array(baseline["windows"])
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
        windows=len(timed["windows"]),
        disturbed=disturbed,
    )
