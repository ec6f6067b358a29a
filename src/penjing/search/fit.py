"""Fit: make candidates, measure each on its file, choose the best that keeps the budget."""

from __future__ import annotations

import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from penjing.device.address import Device
from penjing.errors import InputError, RemoteError
from penjing.measure.there import look_at
from penjing.network import capture
from penjing.processor import this_processor
from penjing.reference import find_task
from penjing.runtimes.registry import ENTRIES, first_runtime, installed
from penjing.search.fixed_list import FixedList, Progress
from penjing.search.interrupt import Interrupt
from penjing.search.ledger import Ledger
from penjing.search.preflight import (
    check_options,
    claim_folder,
    clear,
    ready,
    require_same_run,
)
from penjing.search.result import Candidate, Result
from penjing.search.saturation import judged_on
from penjing.search.workshop import BASELINE, Workshop
from penjing.targets import find_target, require_local
from penjing.task import Task


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
    progress: Progress | None = None,
) -> Result:
    """Compress the task's model for the target, within an accuracy budget.

    A candidate keeps the budget if the upper confidence bound of its drop on the validation data
    is at most `max_drop`. Each width is timed before it is tuned, and tuned only if it can win.
    The test data is looked at in the end, for the chosen file and the original; if the chosen one's
    drop there is over the budget, the next best is tested, three at most, and then the answer is
    the original. Every look is counted and makes the bound on test a stricter one.

    Args:
        task: a `Task`, or the words that name one, as for the command line.
        target: `"cpu"` or `"gpu"`, this machine's, or `"ssh://[user@]host[:port]"`: then time and
            memory are that device's, and the accuracy is measured here, on the same files. The
            original is timed in the first of the target's runtimes that is here.
        max_drop: budget in points (hundredths of the metric), 0..100.
        minutes: about how long to take; at least one candidate is always tried.
        out: folder for `model.onnx` (or another ending), `result.json` and every candidate's file.
        goal: `"latency"` or `"size"`.
        python: of a device, its interpreter that has the runtimes.
        ssh_config: of a device, OpenSSH's configuration to use instead of the user's own.
        overwrite: replace an earlier result in `out`.
        resume: go on with an interrupted fit in `out`; what was tuned there isn't tuned again.

    Raises:
        PenjingError: with one line, before any long work; and a RemoteError where a device is lost
            later, with what was finished in `out`.
    """
    begin = time.monotonic()
    with Interrupt() as interrupt:
        check_options(max_drop, minutes, goal, confidence, seed)
        device = Device.of(target, python, ssh_config)
        where = look_at(device) if device else find_target(target)
        if device is None:
            require_local(where)
        runtime = first_runtime(where)
        folder = claim_folder(Path(out), overwrite, resume)
        task = find_task(task) if isinstance(task, str) else task
        task, notes = ready(task, max_drop)
        network = capture(task.model, task.example, source=task.source)
        problems = runtime.problems(network, where)
        if problems:
            raise InputError(problems[0])
        result = Result(
            task=task.name,
            target=where.name,
            machine=where.description,
            goal=goal,
            max_drop=max_drop,
            confidence=confidence,
            seed=seed,
            versions=_versions(),
            baseline=Candidate(BASELINE, (), "baseline", runtime=runtime.name),
            notes=notes,
            judged_on=judged_on(this_processor()),
        )
        if resume:
            require_same_run(folder, result)
        else:
            clear(folder)
        search = FixedList(
            Ledger(folder, result),
            Workshop(task, folder, confidence, seed, runtime, device),
            where,
            network,
            begin,
            begin + 60 * minutes,
            progress or (lambda *_: None),
            interrupt.check,
        )
        try:
            search.run()
        except RemoteError as error:
            kept = "what was finished is kept, and --resume goes on"
            begun = (folder / "result.json").exists()
            raise RemoteError(f"{error}; {kept}" if begun else str(error)) from error
    return search.ledger.result


def _versions() -> dict[str, str]:
    found = {name: _version(name) for name in ("penjing", "torch", "onnx", "numpy")}
    runtimes = {name: ENTRIES[name].version or "" for name in installed()}
    return found | {"python": platform.python_version()} | runtimes


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # penjing itself, from a folder on the path
        return "not installed"
