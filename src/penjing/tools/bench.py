"""Bench: files side by side, interleaved."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from penjing.contract import Latency
from penjing.device.address import Device
from penjing.device.protocol import parcel_of, runtime_for
from penjing.errors import InputError, UnsafeError, require_positive
from penjing.files import sha256
from penjing.layout import counted
from penjing.measure.latency import compare
from penjing.measure.there import JobOptions, There, measure_there
from penjing.processor import this_processor
from penjing.runtimes.onnx.scan import require_plain
from penjing.runtimes.registry import runtime_of
from penjing.tools.inputs import (
    open_file,
    random_inputs,
    require_same_inputs,
    usable,
)
from penjing.tools.on_data import require_runs
from penjing.tools.record import is_ours
from penjing.trials.evaluation.saturation import as_json, warning


def bench(
    paths: list[Path],
    seconds: float = 5.0,
    seed: int = 0,
    runtimes: Sequence[str] = (),
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Latency]:
    """Time files against the first one, batch 1, one thread, on seeded random inputs.

    Args:
        paths: of files that take the same inputs.
        seconds: how long to measure, in all.
        seed: of the inputs and of the order in which files take turns.
        runtimes: by name, one for all files or one for each; without them, the files' endings
            decide.
        say: called with what is being done.

    Raises:
        InputError: a file is missing, can't be loaded, or fails; the files' inputs differ; the
            number of runtimes isn't that of the files; there is no time to measure.
        UnsafeError: a file is of others, and refused; see `penjing.tools.inputs.opened`.
        MachineError: this machine lacks what a runtime needs.

    Returns:
        The times by what each file is called; the first one's ratio is 1.

    >>> import penjing, tempfile, torch
    >>> data = penjing.Arrays(torch.randn(64, 8), torch.arange(64) % 4)
    >>> task = penjing.Task(torch.nn.Linear(8, 4), data.x[:2], train=data, test=data)
    >>> network = penjing.capture(task.model, task.example)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = penjing.export(network, task, "onnxruntime", out=folder).path
    ...     first, second = penjing.bench([path, path], seconds=0.1).values()
    >>> first.ratio, second.ratio_low < second.ratio < second.ratio_high
    (1.0, True)
    """
    require_time(seconds)
    sessions = {}
    for path, runtime in zip(paths, _one_for_each(runtimes, paths), strict=True):
        name = f"{path} in {runtime}" if runtime else str(path)
        while name in sessions:
            name += " (again)"
        say(f"loading {name}")
        sessions[name] = open_file(path, runtime)
    first = next(iter(sessions))
    require_same_inputs({name: session.inputs for name, session in sessions.items()})
    inputs = random_inputs(sessions[first].inputs, seed)
    for name, session in sessions.items():
        require_runs(name, session, inputs)
    say(f"timing {counted(len(sessions), 'file')} for {seconds:g} s")
    return compare(sessions, inputs, first, seconds, seed)


def warnings(paths: Sequence[Path], runtimes: Sequence[str] = ()) -> list[str]:
    """A line for each file that may answer differently on x86 processors without VNNI.

    Args:
        runtimes: as for `bench`, by which the files were loaded before.
    """
    lines = []
    for path, name in zip(paths, _one_for_each(runtimes, paths), strict=True):
        runtime = runtime_of(path, name)
        with usable(path, runtime, whole=True) as artifact:
            layers = runtime.saturating(artifact)
        lines.append(warning(str(path), as_json(layers), this_processor()))
    return [line for line in dict.fromkeys(lines) if line]


def _one_for_each(runtimes: Sequence[str], paths: Sequence[Path]) -> list[str | None]:
    """The runtime of each file by name; None where its ending decides.

    Raises:
        InputError: another number of runtimes than of files.
    """
    if len(runtimes) not in (0, 1, len(paths)):
        raise InputError(
            f"found {len(runtimes)} runtimes for {len(paths)} files; give one for all files, or "
            "one for each"
        )
    if not runtimes:
        return [None] * len(paths)
    return [*runtimes] * (len(paths) // len(runtimes))


def bench_there(device: Device, paths: list[Path], seconds: float = 5.0, seed: int = 0) -> There:
    """Time files on a device against the first one, batch 1, one thread, on the same inputs.

    Only the device needs their runtimes.

    Raises:
        InputError: a file is missing, or no runtime takes it; no time to measure.
        UnsafeError: an ONNX file of others is of a kind over which runtimes stumble.
        RemoteError: the device can't be used, or can't load or run a file.
    """
    require_time(seconds)
    parcels = {}
    for path in paths:
        if path.suffix == ".onnx" and path.is_file() and not is_ours(path, sha256(path)):
            _look_over(path)
        name = os.fsencode(path).decode(errors="backslashreplace")
        while name in parcels:
            name += " (again)"
        parcels[name] = parcel_of(path, runtime_for(path))
    return measure_there(device, parcels, options=JobOptions(seconds, seed))


def _look_over(path: Path) -> None:
    """Check an ONNX file of others before it goes to a device, which runs it in a process of its
    own."""
    try:
        require_plain(path.read_bytes())
    except (InputError, UnsafeError) as error:
        raise type(error)(f"{path}: {error}") from error


def require_time(seconds: float) -> None:
    """Raise InputError unless one can measure for so long."""
    require_positive("`seconds`", seconds)
