"""Fit: make candidates, measure each on its file, choose the best that keeps the budget."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from penjing.device.address import Device
from penjing.errors import InputError, RemoteError
from penjing.measure.there import look_at
from penjing.network import Network, capture
from penjing.processor import this_processor
from penjing.runtimes.contract import Runtime
from penjing.runtimes.registry import ENTRIES, first_runtime, installed
from penjing.search.folder import Folder, hold
from penjing.search.identity import identity
from penjing.search.interrupt import Interrupt
from penjing.search.options import FitOptions, Report
from penjing.search.preflight import distillable, prepare, require_same_run
from penjing.search.run import Run
from penjing.search.schedule import Schedule
from penjing.search.study import Study
from penjing.search.ways import Ways
from penjing.targets import Target, find_target, require_local
from penjing.tasks.reference import find_task
from penjing.tasks.task import Task
from penjing.trials.candidate import Candidate
from penjing.trials.evaluation.evaluator import FileEvaluator
from penjing.trials.evaluation.saturation import judged_on
from penjing.trials.ledger import Ledger
from penjing.trials.result import REPORT, Result
from penjing.trials.trial import ORIGINAL, Status, Trial
from penjing.tune.options import TuneOptions


def fit(
    task: Task | str,
    target: str = "cpu",
    max_drop: float = 1.0,
    minutes: float = 10.0,
    out: Path | str = "fitted",
    options: FitOptions | None = None,
) -> Result:
    """Compress the task's model for the target, within an accuracy budget.

    A candidate keeps the budget if the upper confidence bound of its drop on the validation data
    is at most `max_drop`. Which candidates are tried is the strategy's affair, see
    `penjing.search.strategies.quick.Quick`. In the end the test data certifies: at most three
    candidates are tested, from the safest to the preferred one, as long as each one's bound there
    keeps the budget, and the last that did is the answer, else the original. So of all fits at most
    1 - confidence deliver a file whose true drop is over the budget. See `certify.prove` for what
    is done where no bound on validation keeps it, and `promise_of` for few samples.

    Args:
        task: a `Task`, or the words that name one, as for the command line.
        target: `"cpu"` or `"gpu"`, this machine's, or `"ssh://[user@]host[:port]"`: then time and
            memory are that device's, and the accuracy is measured here, on the same files. The
            original is timed in the first of the target's runtimes that is here.
        max_drop: budget in points (hundredths of the metric), 0..100.
        minutes: about how long to take. What a strategy must try is always tried; a note tells
            where that, or a busy machine, took longer.
        out: folder for `model.onnx` (or another ending), `result.json`, the ledger and every
            candidate's file. It is held until the end, so that no other fit writes there.
        options: all else.

    Raises:
        PenjingError: with one line, before any long work; a RemoteError where a device is lost
            later, and a BugError where penjing itself is wrong, with what was finished in `out`.
    """
    options = options or FitOptions()
    schedule = Schedule(options.instruments.clock, 60 * minutes, options.epochs)
    with Interrupt() as interrupt:
        options.require_possible(max_drop, minutes)
        device = Device.of(target, options.python, options.ssh_config)
        where = look_at(device) if device else find_target(target)
        if device is None:
            require_local(where)
        given = Given(task, where, device, first_runtime(where), max_drop, schedule, options)
        report = options.report is not None
        with hold(Path(out), options.overwrite, options.resume, _endings(where), report) as folder:
            return _fit(given, folder, interrupt.check)


@dataclass(frozen=True)
class Given:
    """What a fit is asked for, once the target is known."""

    task: Task | str
    target: Target
    device: Device | None
    runtime: Runtime
    max_drop: float
    schedule: Schedule
    options: FitOptions


def _fit(given: Given, folder: Folder, check: Callable[[], None]) -> Result:
    """Run the fit in its folder."""
    options = given.options
    task = find_task(given.task) if isinstance(given.task, str) else given.task
    task, network, result = _begin(task, given, folder.notes)
    ledger = _open_ledger(folder, result, options)
    try:
        if ledger.result.finished:
            return _finished_before(folder, ledger, options.report)
        evaluator = FileEvaluator(
            task, network, given.target, folder.path, options.confidence, options.seed,
            given.runtime, given.device, options.instruments,
        )  # fmt: skip
        evaluator.networks.damaged = ledger.note
        training = TuneOptions(
            distill=0.9 if distillable(task, network) else 0.0, seed=options.seed
        )
        ways = Ways.on(given.target, given.runtime)
        study = Study(given.target, ways, given.schedule, training, ledger, evaluator)
        assert task.validation is not None
        _run_or_say_how_to_go_on(Run(study, options, task.validation, check))
        if options.report is not None:
            ledger.own(REPORT)
            options.report(ledger.result, folder.path)
        return ledger.result
    finally:
        ledger.close()


def _run_or_say_how_to_go_on(run: Run) -> None:
    """Run it; where a device is lost on the way, say that what was finished is kept."""
    try:
        run.run()
    except RemoteError as error:
        if run.result.baseline.artifact is None:
            raise
        kept = "what was finished is kept, and `resume` goes on"
        raise RemoteError(f"{error}; {kept}") from error


def _open_ledger(folder: Folder, result: Result, options: FitOptions) -> Ledger:
    """The ledger of an interrupted fit that is the same one, or a new one."""
    ledger = Ledger.resumed(folder.path) if options.resume else None
    if ledger is not None:
        require_same_run(folder.path, ledger.result, result)
        if not ledger.result.finished:
            ledger.go_on()
        ledger.publish()
        return ledger
    if options.resume and folder.earlier is not None and folder.earlier.baseline.artifact:
        require_same_run(folder.path, folder.earlier, result)
        raise InputError(
            f"{folder.path} has no ledger, which an earlier penjing didn't keep: what was measured "
            "there can be read, but not gone on with; `overwrite` begins anew"
        )
    folder.begin(result)
    return Ledger.begin(folder.path, result)


def _begin(given_task: Task, given: Given, notes: tuple[str, ...]) -> tuple[Task, Network, Result]:
    """The task with validation data, its network, and the result before anything is measured."""
    task, more = prepare(given_task, given.max_drop)
    network = capture(task.model, task.example, source=task.source)
    for problem in given.runtime.problems(network, given.target):
        raise InputError(problem)
    candidate = Candidate((), given.runtime.name)
    baseline = Trial(candidate, ORIGINAL, Status.BASELINE)
    options = given.options
    result = Result(
        task=task.name,
        target=given.target.name,
        machine=given.target.description,
        goal=options.goal,
        max_drop=given.max_drop,
        confidence=options.confidence,
        seed=options.seed,
        versions=_versions(),
        baseline=baseline,
        best=baseline.key,
        notes=(*more, *notes),
        judged_on=judged_on(this_processor()),
        identity=identity(given_task, network),
    )
    return task, network, result


def _finished_before(folder: Folder, ledger: Ledger, report: Report | None) -> Result:
    """The result that lies there, with a line that says so; a report that is missing is made."""
    if report is not None and not all((folder.path / name).exists() for name in REPORT):
        ledger.own(REPORT)
        report(ledger.result, folder.path)
    note = "this fit had been finished before: `resume` found nothing left to do"
    return replace(ledger.result, notes=(*ledger.result.notes, note))


def _endings(where: Target) -> list[str]:
    """Of the files that may be delivered for the target."""
    return [ENTRIES[name].ending for name in where.runtimes if not ENTRIES[name].missing]


def _versions() -> dict[str, str]:
    libraries = {name: _version(name) for name in ("penjing", "torch", "onnx", "numpy")}
    runtimes = {name: ENTRIES[name].version or "" for name in installed()}
    return libraries | {"python": platform.python_version()} | runtimes


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # penjing itself, from a folder on the path
        return "not installed"
