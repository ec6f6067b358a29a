"""Instruments: with what a fit tells the time and measures on this machine."""

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
"""Seconds since some moment, never running backwards."""


class Timer(Protocol):
    """Times sessions side by side; `penjing.measure.latency.compare` is one."""

    def __call__(
        self, sessions: Mapping[str, Session], inputs: Any, baseline: str, seconds: float, seed: int
    ) -> dict[str, Latency]:
        """The latency of each session, by name."""
        ...


def layer_seconds(
    runtime: Runtime, artifact: Artifact, inputs: Any, runs: int
) -> Mapping[str, float] | None:
    """What each layer of the file takes, by the runtime's own profiler; None if it has none."""
    return runtime.seconds_by_layer(artifact, inputs, runs)


@dataclass(frozen=True)
class Instruments:
    """All by which a fit learns what depends on the hour or on this machine's speed.

    Those that a fit is given by default are real. A test hands it others, and then the same fit
    ends alike everywhere.

    Attributes:
        clock: what the time is planned by.
        timer: of files on this machine, side by side.
        peak: the peak of the memory of a process that runs a file: path, inputs, runtime's name.
        profile: seconds by layer: runtime, artifact, inputs, runs; None where it can't be told.
    """

    clock: Clock = time.monotonic
    timer: Timer = latency.compare
    peak: Callable[[Path, Any, str], int | None] = memory.peak_process_bytes
    profile: Callable[[Runtime, Artifact, Any, int], Mapping[str, float] | None] = layer_seconds
