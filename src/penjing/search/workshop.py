"""Workshop: candidates as files, and every figure that is measured on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from penjing.batches import number_of_samples
from penjing.contract import (
    Array,
    Artifact,
    Input,
    Latency,
    Measurement,
    Parity,
    Session,
    as_arrays,
)
from penjing.data import first
from penjing.device.address import Device
from penjing.device.runner import RUNTIMES
from penjing.errors import InputError, PenjingError, RemoteFileError, UnsafeError
from penjing.files import require_writable_folder
from penjing.measure import costs, scores
from penjing.measure.parity import departs, parity
from penjing.measure.there import There, measure_there
from penjing.network import Network, restore
from penjing.runtimes.contract import Runtime
from penjing.runtimes.interface import in_order
from penjing.search.divergence import require_parity
from penjing.search.instruments import Instruments
from penjing.search.promise import MOST_LOOKS, Promise, promise
from penjing.search.saturation import as_json
from penjing.task import Batches, Task

BASELINE = "original"
LATENCY_SECONDS = 3.0
SAMPLES_THERE, JOBS_THERE = 64, 4  # at most, that a device runs for parity
STEM, UNTUNED = "model", "untuned"
"""What the file of a candidate is called, before the ending: of a finished one, and of one that was
only timed."""


@dataclass
class Workshop:
    """The files of one fit, loaded in the runtime.

    Attributes:
        out: the result's folder; each candidate gets a folder of its own in `candidates/`.
        runtime: of all candidates but those that name another.
        confidence: of bounds on validation data.
        device: where time and memory are measured, if not here. Accuracy always is measured here,
            on the same file.
        instruments: for all that is timed here.
        check: called often while a candidate is scored; what it raises ends that.
        scoring_seconds: how long the original took on the validation data; a unit for planning.
        stretch: how many times longer than it was meant to the timing here took, at worst.
        travel_seconds: what the last job on the device took for each file beside the timing.
        notes: what to know of the device's state during the last job that timed.
        promise: by which candidates are judged, see `settle`.
    """

    task: Task
    out: Path
    confidence: float
    seed: int
    runtime: Runtime
    device: Device | None = None
    instruments: Instruments = field(default_factory=Instruments)
    check: Callable[[], None] = lambda: None
    runtimes: dict[str, Runtime] = field(default_factory=dict)
    floats: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)
    scores: dict[str, Array] = field(default_factory=dict)
    scoring_seconds: float = 0.0
    stretch: float = 1.0
    travel_seconds: float = 0.0
    notes: tuple[str, ...] = ()
    promise: Promise = field(default_factory=Promise)

    def folder(self, name: str) -> Path:
        """Where the files of the candidate `name` lie."""
        return self.out / "candidates" / "-".join(name.replace("%", "").replace("+", "").split())

    def proof(self, name: str) -> tuple[str, str]:
        """Which file the figures of a candidate are of: its path within `out`, and its SHA-256."""
        artifact = self.artifacts[name]
        return str(artifact.path.relative_to(self.out)), artifact.sha256

    def runtime_of(self, name: str) -> Runtime:
        """The runtime that the candidate was made for."""
        return self.runtimes.get(name, self.runtime)

    def make(
        self,
        name: str,
        network: Network,
        runtime: Runtime | None = None,
        floats: str = "float32",
        stem: str = STEM,
    ) -> None:
        """Lower the network to the candidate's file, for a runtime of its own if need be, and load
        that; `floats` as for `Runtime.lower`."""
        require_writable_folder(self.folder(name))
        if runtime is not None:
            self.runtimes[name] = runtime
        runtime, self.floats[name] = self.runtime_of(name), floats
        path = self.folder(name) / f"{stem}{runtime.ending}"
        self.artifacts[name] = runtime.lower(network, path, floats)
        self.sessions[name] = runtime.load(self.artifacts[name])

    def tuned_before(self, name: str) -> tuple[Network | None, str]:
        """The network that an interrupted run had tuned as this candidate, if it had; and what is
        wrong with what lies there, so that it must be made again."""
        folder = self.folder(name) / "network"
        if not (folder / "network.json").exists():
            return None, ""
        try:
            return restore(folder, self.task.model, self.task.example), ""
        except (InputError, UnsafeError) as error:
            return None, str(error)

    def sizes(self, name: str, network: Network) -> Measurement:
        """What a file is before it has run: bytes, MACs, parameters."""
        artifact = self.artifacts[name]
        operators = costs.costs(network)
        layers = self.runtime_of(name).saturating(artifact)
        return Measurement(
            file_bytes=artifact.file_bytes,
            weight_bytes=self.runtime_of(name).weight_bytes(artifact),
            peak_activation_bytes=costs.peak_activation_bytes(network),
            macs=sum(one.macs for one in operators),
            params=sum(one.params for one in operators),
            metric=self.task.metric.name,
            saturates=as_json(layers),
        )

    def measure(self, name: str, network: Network) -> Measurement:
        """Everything, on the file: sizes, score, drop, parity, memory, latency.

        Raises:
            InputError: its outputs aren't finite, or the metric can't score them.
            DivergenceError: it computes something else here than its network.
        """
        begin = self.instruments.clock()
        self.scores[name] = scores.score(
            self.sessions[name], self.validation, self.task.metric, lambda _: self.check()
        )
        if name == BASELINE:
            self.scoring_seconds = self.instruments.clock() - begin
        found = self._require_parity(name, network)
        took, peak = self._time_and_peak(name)
        return replace(
            self.sizes(name, network),
            peak_process_bytes=peak,
            score=float(self.scores[name].mean()),
            latency=took,
            drop=scores.drop(self.scores[BASELINE], self.scores[name], self.confidence),
            parity=found,
        )

    def _require_parity(self, name: str, network: Network) -> Parity:
        """How far the candidate's file is from what its network is in that runtime; raises as
        `measure` says."""
        floats, network = self.floats[name], self.runtime_of(name).as_computed(network)
        found = parity(network, self.sessions[name], self.validation, floats=floats)
        if not math.isfinite(found.max_difference):
            raise InputError("the file's outputs are NaN or infinite on validation data")
        (inputs, _), *_ = first(self.validation, SAMPLES_THERE)
        runtime, artifact = self.runtime_of(name), self.artifacts[name]
        require_parity(found, network, runtime, artifact, inputs, floats)
        return found

    def _time_and_peak(self, name: str) -> tuple[Latency, int | None]:
        """The candidate's latency, and the peak of the memory of a process that runs it."""
        if self.device is None:
            return self.time_once([name])[name], self._peak_process_bytes(self.artifacts[name])
        there = self._measure_there(self.device, (BASELINE, name), LATENCY_SECONDS, (name,))
        return there.times[name], there.peaks[name]

    def _peak_process_bytes(self, artifact: Artifact) -> int | None:
        """None for a runtime that only penjing can load."""
        if artifact.runtime not in RUNTIMES:
            return None
        return self.instruments.peak(artifact.path, self.one, artifact.runtime)

    def time(
        self, names: Sequence[str], seconds: float = LATENCY_SECONDS, baseline: str = BASELINE
    ) -> dict[str, Latency]:
        """Latencies of candidates and the original (or another), all in the same windows; taken
        once more if other load disturbed them."""
        found = self.time_once(names, seconds, baseline)
        if any(one.disturbed for one in found.values()):
            found = self.time_once(names, seconds, baseline)
        return found

    def time_once(
        self, names: Sequence[str], seconds: float = LATENCY_SECONDS, baseline: str = BASELINE
    ) -> dict[str, Latency]:
        """As `time`, disturbed or not."""
        if self.device is not None:
            return self._measure_there(self.device, (baseline, *names), seconds).times
        some = {name: self.sessions[name] for name in (baseline, *names)}
        begin = self.instruments.clock()
        found = self.instruments.timer(some, self.one, baseline, seconds, self.seed)
        self.stretch = max(self.stretch, (self.instruments.clock() - begin) / seconds)
        return found

    def time_what_runs(
        self, names: Sequence[str], seconds: float
    ) -> tuple[dict[str, Latency], dict[str, str]]:
        """As `time`, but for candidates that a device can't load or run; of these, why.

        Those that it can't hold all at once are timed one by one, each beside the original.
        """
        try:
            return self.time(names, seconds), {}
        except RemoteFileError as error:
            if error.file in names:
                rest = [one for one in names if one != error.file]
                times, refused = self.time_what_runs(rest, seconds)
                return times, refused | {error.file: str(error)}
            if len(names) < 2:
                raise
        times, refused = {}, {}
        for one in names:
            found, why = self.time_what_runs([one], seconds / len(names))
            times, refused = times | found, refused | why
        return times, refused

    def _measure_there(
        self,
        device: Device,
        names: Sequence[str],
        seconds: float,
        alone: Sequence[str] | None = None,
    ) -> There:
        begin = self.instruments.clock()
        some = {name: self.artifacts[name] for name in names}
        one = tuple(in_order(self.one, self.sessions[BASELINE].inputs))
        found = measure_there(device, some, one, seconds=seconds, seed=self.seed, alone=alone)
        versions = dict.fromkeys(v for one in found.measurements.values() for v in one.notes)
        self.notes = (*found.notes, f"there: {', '.join(versions)}")
        self.travel_seconds = (self.instruments.clock() - begin - seconds) / len(some)
        return found

    def notes_there(self, name: str, network: Network) -> tuple[str, ...]:
        """What to know of the device, and how its outputs of a candidate's file differ from the
        network's; nothing if this machine is it."""
        if self.device is None:
            return ()
        session = SessionThere(self.device, self.artifacts[name], self.sessions[name].inputs)
        batches = first(self.validation, SAMPLES_THERE)[:JOBS_THERE]
        some = [(_cut(inputs, SAMPLES_THERE), targets) for inputs, targets in batches]
        try:
            found = parity(network, session, some, SAMPLES_THERE)
        except (PenjingError, ValueError) as error:  # what is proven here doesn't hang on it
            return (*self.notes, f"{name} couldn't be compared on the device: {error}")
        text = (
            f"on the device {name} differs from its network by at most {found.max_difference:.2g}"
        )
        if found.same_decisions is not None:
            text += f", and {found.same_decisions:.2%} of {found.samples} decisions are the same"
        if why := departs(found, self.floats[name]):
            text += f": it computes something else there, for {why}"
        return (*self.notes, text)

    @property
    def timing_seconds(self) -> float:
        """About how long it takes to time a candidate beside the original."""
        return self.stretch * LATENCY_SECONDS + 2 * self.travel_seconds

    def settle(self, max_drop: float) -> Promise:
        """Settle what certifies that a file keeps the budget; from now on bounds on validation are
        at the confidence that this takes. The original is measured, and no candidate is."""
        original = self.scores[BASELINE]
        self.promise = promise(
            max_drop,
            self.confidence,
            len(original),
            number_of_samples(self.task.test),
            scores.greatest_loss(original, original),
        )
        self.confidence = self.promise.confidence
        return self.promise

    def test(self, name: str) -> Array:
        """A candidate's score on every sample of the test data."""
        return scores.score(self.sessions[name], self.task.test, self.task.metric)

    def testing_seconds(self) -> float:
        """About how long it takes to test the original and as many candidates as may be tested, if
        both splits have batches of the same size."""
        both = self.task.test, self.validation
        known = all(isinstance(one, Sized) for one in both)
        share = len(both[0]) / max(1, len(both[1])) if known else 1.0  # type: ignore[arg-type]
        return (1 + MOST_LOOKS) * share * self.scoring_seconds

    @property
    def validation(self) -> Batches:
        """The held-out data that the search looks at."""
        assert self.task.validation is not None
        return self.task.validation

    @property
    def one(self) -> Any:
        """A single sample of the example, for timing."""
        return _cut(as_arrays(self.task.example), 1)


def _cut(inputs: Any, samples: int) -> Any:
    """The first so many samples."""
    return torch.utils._pytree.tree_map(lambda x: x[:samples], inputs)


@dataclass(frozen=True)
class SessionThere:
    """An artifact that a device runs, each batch in a job of its own.

    Attributes:
        inputs: what the artifact takes, see `penjing.contract.Session`.
    """

    device: Device
    artifact: Artifact
    inputs: Sequence[Input]

    def run(self, inputs: Any) -> tuple[Array, ...]:
        """All outputs, in the order of the file's.

        Raises:
            RemoteError: the device can't be used, or can't run the file on these inputs.
        """
        values = tuple(in_order(inputs, self.inputs))
        some = {"file": self.artifact}
        found = measure_there(self.device, some, values, seconds=0, outputs=True, alone=())
        return found.outputs["file"]
