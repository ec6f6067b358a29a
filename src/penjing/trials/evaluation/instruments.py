"""Instruments: the clock and the measuring tools of a fit on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from penjing.contract import Artifact, Latency, Session
from penjing.measure import latency, memory
from penjing.runtimes.contract import Runtime

Clock = Callable[[], float]
"""Gives the seconds since some moment; never runs backwards."""


class Timer(Protocol):
    """Times sessions side by side, as `penjing.measure.latency.compare` does."""

    def __call__(
        self, sessions: Mapping[str, Session], inputs: Any, baseline: str, seconds: float, seed: int
    ) -> dict[str, Latency]:
        """The latency of each session, by name."""
        ...


def layer_seconds(
    runtime: Runtime, artifact: Artifact, inputs: Any, runs: int
) -> Mapping[str, float] | None:
    """The time of each layer of the file, by the runtime's own profiler; None if it has none."""
    return runtime.seconds_by_layer(artifact, inputs, runs)


def runs_in(seconds: float, latency: Latency, limits: tuple[int, int]) -> int:
    """How many runs of a file a profile of about so many seconds has, within limits.

    >>> runs_in(0.1, Latency(5, 5, 1, 1, 1, 20), (8, 60))
    20
    """
    runs = int(seconds / max(latency.latency_ms / 1e3, 1e-6))
    return min(max(runs, limits[0]), limits[1])


@dataclass(frozen=True)
class Instruments:
    """Everything by which a fit learns the time or this machine's speed.

    By default these are real. A test passes others, so that a fit gives the same result on every
    machine.

    Attributes:
        clock: gives the seconds by which the time is planned.
        timer: times files on this machine, side by side.
        peak: gives the peak memory of a process that runs a file: path, inputs, runtime's name.
        profile: gives seconds by layer: runtime, artifact, inputs, runs; None without a profiler.
    """

    clock: Clock = time.monotonic
    timer: Timer = latency.compare
    peak: Callable[[Path, Any, str], int | None] = memory.peak_process_bytes
    profile: Callable[[Runtime, Artifact, Any, int], Mapping[str, float] | None] = layer_seconds
