"""Timing: measures files side by side, on this machine or on a device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from penjing.contract import Latency
from penjing.device.address import Device
from penjing.device.runner import RUNTIMES
from penjing.measure.there import JobOptions, There, measure_there
from penjing.runtimes.interface import in_order
from penjing.trials.evaluation.files import Loaded
from penjing.trials.evaluation.instruments import Instruments

LATENCY_SECONDS = 3.0


@dataclass
class Timing(ABC):
    """Where files are timed.

    Attributes:
        inputs: a single sample.
        stretch: how many times longer than planned the timing took, at worst.
        travel_seconds: how long each file took in the last sitting, beside the timing itself.
        notes: what users should know about the device's state during the last sitting.
        usual_seconds: how long a file is timed beside the original.
    """

    usual_seconds: ClassVar[float] = LATENCY_SECONDS

    inputs: Any
    seed: int
    instruments: Instruments
    stretch: float = 1.0
    travel_seconds: float = 0.0
    notes: tuple[str, ...] = ()

    @abstractmethod
    def latencies(self, files: Sequence[Loaded], seconds: float) -> dict[str, Latency]:
        """The latencies of all files, in the same windows, by key; the first one's ratio is 1."""

    @abstractmethod
    def latency_and_peak(self, baseline: Loaded, file: Loaded) -> tuple[Latency, int | None]:
        """The latency beside the baseline, and the peak memory of a process that runs the file.

        The peak is None if only penjing can load the file.
        """


class Here(Timing):
    """This machine."""

    def latencies(self, files: Sequence[Loaded], seconds: float) -> dict[str, Latency]:
        """See `Timing`."""
        sessions = {file.title: file.session for file in files}
        begin = self.instruments.clock()
        times = self.instruments.timer(sessions, self.inputs, files[0].title, seconds, self.seed)
        self.stretch = max(self.stretch, (self.instruments.clock() - begin) / seconds)
        return {file.key: times[file.title] for file in files}

    def latency_and_peak(self, baseline: Loaded, file: Loaded) -> tuple[Latency, int | None]:
        """See `Timing`."""
        latency = self.latencies(_apart(baseline, file), LATENCY_SECONDS)[file.key]
        path, runtime = file.artifact.path, file.artifact.runtime
        known = runtime in RUNTIMES
        return latency, self.instruments.peak(path, self.inputs, runtime) if known else None


@dataclass
class OnDevice(Timing):
    """A device, over SSH."""

    device: Device = field(kw_only=True)

    def latencies(self, files: Sequence[Loaded], seconds: float) -> dict[str, Latency]:
        """See `Timing`.

        Raises:
            RemoteFileError: a file can't be loaded or run there; its `file` is the title.
            RemoteError: the device is lost.
        """
        times = self._sitting(files, seconds).times
        return {file.key: times[file.title] for file in files}

    def latency_and_peak(self, baseline: Loaded, file: Loaded) -> tuple[Latency, int | None]:
        """See `Timing`; raises as `latencies` does."""
        there = self._sitting(_apart(baseline, file), LATENCY_SECONDS, (file.title,))
        return there.times[file.title], there.peaks[file.title]

    def _sitting(
        self, files: Sequence[Loaded], seconds: float, alone: Sequence[str] | None = None
    ) -> There:
        begin = self.instruments.clock()
        artifacts = {file.title: file.artifact for file in files}
        inputs = tuple(in_order(self.inputs, files[0].session.inputs))
        options = JobOptions(seconds, self.seed, alone=alone)
        there = measure_there(self.device, artifacts, inputs, options)
        notes = (note for figures in there.measurements.values() for note in figures.notes)
        versions = dict.fromkeys(notes)
        self.notes = (*there.notes, f"there: {', '.join(versions)}")
        self.travel_seconds = (self.instruments.clock() - begin - seconds) / len(artifacts)
        return there


@dataclass
class Estimated(Timing):
    """A device that isn't here: estimates in place of times, without any spread."""

    usual_seconds: ClassVar[float] = 0.0

    def latencies(self, files: Sequence[Loaded], seconds: float) -> dict[str, Latency]:
        """See `Timing`; takes no time."""
        costs = {file.key: _milliseconds(file) for file in files}
        whole = costs[files[0].key]
        shares = {key: cost / whole for key, cost in costs.items()}
        return {
            key: Latency(costs[key], costs[key], share, share, share, 0)
            for key, share in shares.items()
        }

    def latency_and_peak(self, baseline: Loaded, file: Loaded) -> tuple[Latency, int | None]:
        """See `Timing`. Nothing estimates the memory of a process."""
        return self.latencies([baseline, file], 0.0)[file.key], None


def _milliseconds(file: Loaded) -> float:
    assert file.estimate is not None
    assert file.estimate.latency_ms is not None
    return file.estimate.latency_ms


def _apart(baseline: Loaded, file: Loaded) -> Sequence[Loaded]:
    """Both files, or only one if the file is the baseline's."""
    return [baseline] if file.key == baseline.key else [baseline, file]
