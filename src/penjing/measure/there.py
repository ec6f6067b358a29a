"""There: the figures of artifacts, measured on a device over SSH."""

from __future__ import annotations

import io
import math
import tempfile
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from penjing.contract import Array, Artifact, Latency, Measurement
from penjing.device.address import Device
from penjing.device.job import Done, run_job
from penjing.device.protocol import Parcel, parcel_of
from penjing.device.runner import RUNTIMES
from penjing.errors import InputError, RemoteError, RemoteFileError, UnsafeError
from penjing.files import sha256
from penjing.measure.latency import summaries
from penjing.targets import Target

LOADING_SECONDS = 120.0
SLOWER_CLOCK = 0.9


@dataclass(frozen=True)
class There:
    """What a device measured of artifacts.

    Attributes:
        device: the device in words.
        measurements: for each name: bytes of the file, peak memory of a process that ran only it,
            and latency.
        outputs: the outputs by name. Empty if they weren't asked for.
        notes: the state of the device while it was timed, one line each.
    """

    device: str
    measurements: Mapping[str, Measurement]
    outputs: Mapping[str, tuple[Array, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def times(self) -> dict[str, Latency]:
        """The latencies by name."""
        every = {name: figures.latency for name, figures in self.measurements.items()}
        return {name: latency for name, latency in every.items() if latency is not None}

    @property
    def peaks(self) -> dict[str, int | None]:
        """The peak memory by name."""
        return {name: figures.peak_process_bytes for name, figures in self.measurements.items()}


def look_at(device: Device) -> Target:
    """The device as a target: its processor, its memory, and the runtimes of its interpreter.

    Raises:
        InputError: its interpreter has no runtime.
        RemoteError: the device can't be used.
    """
    part = {"artifacts": [], "inputs": {}, "threads": 1, "seconds": 0, "outputs": False}
    try:
        told = run_job(device, (), {"the first request": part}, LOADING_SECONDS).parts[0]
    except RemoteFileError as error:  # there is no file
        raise RemoteError(str(error)) from error
    try:
        what = told["device"]
        words, machine = _words(what, device), str(what["machine"])
        cores, memory = int(what["cores"]), 1024 * int(what["memory_kb"])
        runtimes = tuple(name for name in RUNTIMES if what["runtimes"][name])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _malformed(device, error) from error
    if not runtimes:
        raise InputError(
            f"{device.address}: {device.python} on the device has none of {', '.join(RUNTIMES)}; "
            "install one (pip install onnxruntime), or name another interpreter with `python`"
        )
    figures = ("isa", "cores", "memory_bytes", "runtimes")
    return Target(
        name=device.address,
        description=words,
        isa=machine,
        cores=cores,
        memory_bytes=memory or None,
        flash_bytes=None,
        runtimes=runtimes,
        precisions=("float32", "int8"),
        channel_multiple=8,
        reach="ssh",
        sources=dict.fromkeys(figures, "read from the device's operating system"),
    )


@dataclass(frozen=True)
class JobOptions:
    """What a device does with artifacts besides loading them.

    Attributes:
        seconds: how long to time them. 0 means not at all.
        seed: the seed of random inputs, and of the ratios' intervals.
        outputs: whether to return the outputs, for parity.
        alone: the names of the artifacts whose peak memory is measured. None means all.
        deadline_s: the seconds after which the device ends the job. None allows minutes for
            loading.
    """

    seconds: float = 5.0
    seed: int = 0
    outputs: bool = False
    alone: Collection[str] | None = None
    deadline_s: float | None = None


def measure_there(
    device: Device,
    artifacts: Mapping[str, Artifact | Parcel],
    inputs: Any = None,
    options: JobOptions = JobOptions(),
) -> There:
    """Measure artifacts on a device, on one thread.

    First each runs alone, for its peak memory. Then all are timed in the same rounds.

    Args:
        device: the device.
        artifacts: the artifacts by name. The first is the baseline of the ratios.
        inputs: one batch: an array, a tuple of arrays, or a dict of arrays by name. None lets the
            device draw random inputs of batch 1.
        options: what else to do.

    Raises:
        UnsafeError: a file isn't the one that was lowered.
        RemoteFileError: the device can't load or run a file. `file` is its name in `artifacts`, or
            several names if the files only fail together.
        RemoteError: the device can't be used.
    """
    parcels = {name: _parcel(artifact) for name, artifact in artifacts.items()}
    with tempfile.TemporaryDirectory() as folder:
        given = None if inputs is None else _packed(inputs, Path(folder) / "inputs.npz")
        common: dict[str, Any] = {
            "inputs": {"seed": options.seed} if given is None else {"sha256": given.sha256},
            "threads": 1, "seed": options.seed, "seconds": 0, "outputs": False,
        }  # fmt: skip
        described = [parcel.described() for parcel in parcels.values()]
        light = common | {"inputs": _zeros(inputs)}  # random or unpacked inputs take more memory
        singled = [name for name in parcels if options.alone is None or name in options.alone]
        parts = {name: light | {"artifacts": [parcels[name].described()]} for name in singled}
        last = common | {
            "artifacts": described, "seconds": options.seconds, "outputs": options.outputs,
        }  # fmt: skip
        parts[f"{', '.join(parcels)} together"] = last
        limit = options.deadline_s or LOADING_SECONDS * len(parts) + 4 * options.seconds
        brought = (*parcels.values(), *([given] if given else []))
        done = run_job(device, brought, parts, limit)
    if options.outputs and done.outputs is None:
        raise _malformed(device, KeyError("outputs"))
    return _figures(device, parcels, singled, done, options.seed)


def _parcel(artifact: Artifact | Parcel) -> Parcel:
    if isinstance(artifact, Parcel):
        return artifact
    parcel = parcel_of(artifact.path, artifact.runtime)
    if parcel.sha256 != artifact.sha256:
        raise UnsafeError(
            f"{artifact.path} has changed: sha256 {parcel.sha256[:12]}, wanted "
            f"{artifact.sha256[:12]}; make it again"
        )
    return parcel


def _named(inputs: Any) -> dict[str, Array]:
    """The arrays by name, or by position if they have no names."""
    values = inputs if isinstance(inputs, tuple | dict) else (inputs,)
    named = values if isinstance(values, dict) else dict(enumerate(values))
    return {str(name): np.asarray(value) for name, value in named.items()}


def _packed(inputs: Any, path: Path) -> Parcel:
    arrays: dict[str, Any] = _named(inputs)
    np.savez(path, **arrays)
    return Parcel((path,), ("model.npz",), sha256(path))


def _zeros(inputs: Any) -> dict[str, Any]:
    if inputs is None:
        return {"zeros": None}
    return {"zeros": [[list(array.shape), str(array.dtype)] for array in _named(inputs).values()]}


def _figures(
    device: Device, parcels: Mapping[str, Parcel], singled: Sequence[str], done: Done, seed: int
) -> There:
    *alone, together = done.parts
    names = list(parcels)
    times: dict[str, Latency] = {}
    try:
        notes, throttled = _state(together)
        if "times" in together:
            timed = {name: together["times"][str(i)] for i, name in enumerate(names)}
            _require_times(timed)
            times = summaries(timed, names[0], together["disturbed"] or throttled, seed)
        peaks = {
            name: part["peak_process_bytes"] for name, part in zip(singled, alone, strict=True)
        }
        measurements = {
            name: Measurement(
                file_bytes=sum(parcels[name].described()["sizes"]),
                peak_process_bytes=peaks.get(name),
                latency=times.get(name),
                notes=(f"{parcels[name].runtime} {version or 'of unknown version'}",),
            )
            for name, version in zip(names, together["versions"], strict=True)
        }
        outputs = {} if done.outputs is None else _unpacked(done.outputs, names)
        words = _words(together["device"], device)
    except (KeyError, TypeError, ValueError, IndexError, zipfile.BadZipFile) as error:
        raise _malformed(device, error) from error
    return There(words, measurements, outputs, notes)


def _words(what: Mapping[str, Any], device: Device) -> str:
    return f"{what['name']} ({what['machine']}, {device.address})"


def _malformed(device: Device, error: Exception) -> RemoteError:
    return RemoteError(f"{device.address}: the result is malformed ({error}); try again")


def _require_times(timed: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    rounds = {len(times["windows"]) for times in timed.values()}
    every = (t for times in timed.values() for t in (*times["windows"], *times["samples"]))
    if len(rounds) != 1 or 0 in rounds:
        raise ValueError("rounds are missing")
    if not all(math.isfinite(t) and t > 0 for t in every):
        raise ValueError("a time isn't above zero, so the device's clock is too coarse or wrong")


def _unpacked(content: bytes, names: Sequence[str]) -> dict[str, tuple[Array, ...]]:
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        counts = [sum(key.startswith(f"{i}.") for key in file.files) for i in range(len(names))]
        return {
            name: tuple(file[f"{i}.{k}"] for k in range(counts[i])) for i, name in enumerate(names)
        }


def _state(together: Mapping[str, Any]) -> tuple[tuple[str, ...], bool]:
    """Notes on the state of the device, and whether it was throttled."""
    if "before" not in together:
        return (), False
    before, after = together["before"], together["after"]
    notes = [f"CPU governor: {after['governor'] or 'unknown'}"]
    celsius = after["celsius"]
    notes.append("temperature: " + ("unknown" if celsius is None else f"{celsius:.0f} °C"))
    counts = before["throttle_count"], after["throttle_count"]
    throttled = bool(after["throttled_now"]) or (None not in counts and counts[1] > counts[0])
    clocks = before["mhz"], after["mhz"]
    if None not in clocks and clocks[1] < SLOWER_CLOCK * clocks[0]:
        notes.append(
            f"its clock fell from {clocks[0]:.0f} to {clocks[1]:.0f} MHz, so don't trust the times"
        )
        throttled = True
    elif throttled:
        notes.append("it throttled because of heat or its power supply, so don't trust the times")
    elif after["throttled_now"] is None and None in counts:
        notes.append("throttling: unknown")
    return tuple(notes), throttled
