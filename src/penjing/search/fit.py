"""Fit: make candidates, measure each on its file, choose the best that keeps the budget."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from penjing.device.address import Device
from penjing.errors import InputError, RemoteError
from penjing.measure.there import look_at
from penjing.network import Network, capture
from penjing.processor import this_processor
from penjing.reference import find_task
from penjing.runtimes.contract import Runtime
from penjing.runtimes.registry import ENTRIES, first_runtime, installed
from penjing.search.fixed_list import FixedList, Progress
from penjing.search.folder import Folder, claimed
from penjing.search.identity import identity
from penjing.search.instruments import Instruments
from penjing.search.interrupt import Interrupt
from penjing.search.ledger import Ledger
from penjing.search.preflight import check_options, ready, require_same_run
from penjing.search.result import REPORT, Candidate, Result
from penjing.search.saturation import judged_on
from penjing.search.schedule import Schedule
from penjing.search.workshop import BASELINE, Workshop
from penjing.targets import Target, find_target, require_local
from penjing.task import Task

Report = Callable[[Result, Path], object]
"""Called with a result and its folder."""


def fit(
    task: Task | str,
    target: str = "cpu",
    max_drop: float = 1.0,
    minutes: float = 10.0,
    out: Path | str = "fitted",
    *,
    goal: str = "latency",
    seed: int = 0,
    confidence: float = 0.95,
    python: str = "python3",
    ssh_config: Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    epochs: float | None = None,
    instruments: Instruments | None = None,
    progress: Progress | None = None,
    report: Report | None = None,
) -> Result:
    """Compress the task's model for the target, within an accuracy budget.

    A candidate keeps the budget if the upper confidence bound of its drop on the validation data
    is at most `max_drop`. The original and int8 are tried in every runtime first. Each width is
    timed before it is tuned, cut only if there is time to tune it, and tuned only if it can win.
    In the end the test data certifies: at most three candidates are tested, from the safest to the
    preferred one, as long as each one's bound there keeps the budget, and the last that did is the
    answer, else the original. So of all fits at most 1 - `confidence` deliver a file whose true
    drop is over the budget. See `looks.prove` for what is done where no bound on validation keeps
    it, and `promise.promise` for few samples.

    Args:
        task: a `Task`, or the words that name one, as for the command line.
        target: `"cpu"` or `"gpu"`, this machine's, or `"ssh://[user@]host[:port]"`: then time and
            memory are that device's, and the accuracy is measured here, on the same files. The
            original is timed in the first of the target's runtimes that is here.
        max_drop: budget in points (hundredths of the metric), 0..100.
        minutes: about how long to take. The original and int8 in every runtime are always tried; a
            note tells where that, or a busy machine, took longer.
        out: folder for `model.onnx` (or another ending), `result.json` and every candidate's file.
            It is held until the end, so that no other fit writes there.
        goal: `"latency"` or `"size"`.
        python: of a device, its interpreter that has the runtimes.
        ssh_config: of a device, OpenSSH's configuration to use instead of the user's own.
        overwrite: replace an earlier result in `out`; what penjing didn't write there stays.
        resume: go on with an interrupted fit in `out`, of the same model, data and options; what
            was tuned there isn't tuned again. Of a finished one, give the result; where there is
            none, begin.
        epochs: of each training, however long that takes, instead of `minutes`: then everything
            that can win is tried, and no decision hangs on the clock.
        instruments: the clock and all that measures on this machine; None is the real ones.
        report: writes `report.md` and `plot.png` about the result into the folder, at the end.

    Raises:
        PenjingError: with one line, before any long work; and a RemoteError where a device is lost
            later, with what was finished in `out`.
    """
    instruments = instruments or Instruments()
    schedule = Schedule(instruments.clock, 60 * minutes, epochs)
    with Interrupt() as interrupt:
        check_options(max_drop, minutes, goal, confidence, seed, epochs)
        device = Device.of(target, python, ssh_config)
        where = look_at(device) if device else find_target(target)
        if device is None:
            require_local(where)
        runtime = first_runtime(where)
        with claimed(Path(out), overwrite, resume, _endings(where), report is not None) as folder:
            task = find_task(task) if isinstance(task, str) else task
            options = {"goal": goal, "max_drop": max_drop, "confidence": confidence, "seed": seed}
            task, network, result = _begun(task, where, runtime, options, folder.notes)
            if resume and folder.earlier is not None:
                require_same_run(Path(out), folder.earlier, result)
                if folder.earlier.finished:
                    return _finished_before(folder, report)
                result = replace(result, files=folder.earlier.files)
            else:
                folder.begin(result)
            search = FixedList(
                Ledger(folder.path, result),
                Workshop(task, folder.path, confidence, seed, runtime, device, instruments),
                where,
                network,
                schedule,
                progress or (lambda *_: None),
                interrupt.check,
            )
            try:
                search.run()
            except RemoteError as error:
                if search.result.baseline.artifact is None:
                    raise
                kept = "what was finished is kept, and `resume` goes on"
                raise RemoteError(f"{error}; {kept}") from error
            if report is not None:
                search.ledger.own(REPORT)
                report(search.result, folder.path)
    return search.result


def _begun(
    task: Task, where: Target, runtime: Runtime, options: Mapping[str, Any], notes: tuple[str, ...]
) -> tuple[Task, Network, Result]:
    """The task with validation data, its network, and the result before anything is measured."""
    given = task
    task, more = ready(task, options["max_drop"])
    network = capture(task.model, task.example, source=task.source)
    for problem in runtime.problems(network, where):
        raise InputError(problem)
    result = Result(
        task=task.name,
        target=where.name,
        machine=where.description,
        versions=_versions(),
        baseline=Candidate(BASELINE, (), "baseline", runtime=runtime.name),
        notes=(*more, *notes),
        judged_on=judged_on(this_processor()),
        identity=identity(given, network),
        **options,
    )
    return task, network, result


def _finished_before(folder: Folder, report: Report | None) -> Result:
    """The result that lies there, with a line that says so; a report that is missing is made."""
    assert folder.earlier is not None
    if report is not None and not all((folder.path / one).exists() for one in REPORT):
        replace(folder.earlier, files=(*folder.earlier.files, *REPORT)).save(folder.path)
        report(folder.earlier, folder.path)
    note = "this fit had been finished before: `resume` found nothing left to do"
    return replace(folder.earlier, notes=(*folder.earlier.notes, note))


def _endings(where: Target) -> list[str]:
    """Of the files that may be delivered for the target."""
    return [ENTRIES[one].ending for one in where.runtimes if not ENTRIES[one].missing]


def _versions() -> dict[str, str]:
    found = {name: _version(name) for name in ("penjing", "torch", "onnx", "numpy")}
    runtimes = {name: ENTRIES[name].version or "" for name in installed()}
    return found | {"python": platform.python_version()} | runtimes


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # penjing itself, from a folder on the path
        return "not installed"
