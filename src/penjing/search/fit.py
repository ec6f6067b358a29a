"""Fit: make candidates, measure each one's file, and choose the best that keeps the budget."""

from __future__ import annotations

import platform
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

from penjing.device.address import Device
from penjing.errors import InputError, LostProcessError, RemoteError
from penjing.measure.there import look_at
from penjing.network import Network, capture
from penjing.processor import this_processor
from penjing.runtimes.contract import Runtime
from penjing.runtimes.registry import ENTRIES, first_runtime, installed
from penjing.search.budget import Budget, in_words
from penjing.search.folder import Folder, hold
from penjing.search.identity import identity
from penjing.search.interrupt import Interrupt
from penjing.search.options import FitOptions, Report
from penjing.search.predict.known import Known
from penjing.search.preflight import prepare, require_same_run, usual_training
from penjing.search.run import Run
from penjing.search.schedule import Schedule
from penjing.search.study import Study
from penjing.search.ways import Ways
from penjing.targets import Target, find_target
from penjing.tasks.reference import find_task
from penjing.tasks.task import Task
from penjing.trials.candidate import Candidate
from penjing.trials.evaluation.estimates import Estimating
from penjing.trials.evaluation.evaluator import FileEvaluator
from penjing.trials.evaluation.saturation import judged_on
from penjing.trials.judgement.goal import canonical
from penjing.trials.ledger import Ledger
from penjing.trials.result import REPORT, Result
from penjing.trials.trial import ORIGINAL, Status, Trial
from penjing.tune import exchange, orders
from penjing.tune.follow import follow

SOON = 1.0
"""Seconds; the data is read without a word if that takes no longer."""


def fit(
    task: Task | str,
    target: str = "cpu",
    max_drop: float | str = 1.0,
    minutes: float = 10.0,
    out: Path | str = "fitted",
    options: FitOptions | None = None,
) -> Result:
    """Compress the task's model for a target, within an accuracy budget.

    A fit makes candidates (smaller variants of the network), exports each to the file that the
    target's runtime loads, and measures that file. A typical call takes ten minutes::

        result = penjing.fit(task, target="cpu", max_drop=1.0, minutes=10, out="fitted")
        print(result.chosen, result.reason)

    The arguments, the model and the data are checked before any long work:

    >>> import penjing
    >>> penjing.fit("digits", target="raspberry-pi-6")
    Traceback (most recent call last):
    penjing.errors.InputError: no target 'raspberry-pi-6'; did you mean 'raspberry-pi-5'? ...

    A candidate keeps the budget if the upper confidence bound of its drop on the validation data is
    at most `max_drop`. The strategy decides which candidates are tried (see
    `penjing.search.strategies.joint.Joint`).

    At the end the test data certifies the answer. At most four candidates are tested one after the
    other, from the safest to the preferred one, until the bound of one exceeds the budget. The last
    one that kept it is the answer; if none did, the original is. So at most a share of
    1 - confidence of all fits delivers a file whose true drop exceeds the budget.
    `penjing.trials.judgement.certify.prove` says what happens if no bound on the validation data
    keeps the budget, and `penjing.trials.judgement.promise.promise_of` treats small data sets.

    Under `torchrun`, all processes train each network together. The first one does everything else,
    and all return the same result.

    Args:
        task: a `Task`, or the name of one as on the command line.
        target: `"cpu"` or `"gpu"` of this machine; the address of a device,
            `"ssh://[user@]host[:port]"`, where time and memory are measured then, and accuracy on
            this machine with the same files; or the name of a device that isn't here (`penjing
            targets` lists them). For that one, its compiler's estimates stand for the time, or
            where nobody estimates, the MACs; the result says so. The original is in the first of
            the target's runtimes that holds floats and is installed on this machine.
        max_drop: the budget: percentage points (hundredths of the metric), 0 to 100, or an amount
            in the metric's own unit if it has one. `"5%"` is a share of the original's figure.
        minutes: about how long the fit may take, from when the task was read. A strategy's
            mandatory candidates are always tried. A note says if they, or a busy machine, made the
            fit take longer.
        out: the folder for `model.onnx` (or another ending), `result.json`, the ledger and the
            files of all candidates. It is locked until the end, so that no other fit writes there.
        options: everything else.

    Returns:
        The result: the chosen trial, all others, and why it was chosen.

    Raises:
        PenjingError: something is wrong with the arguments, the model or the data; raised before
            any long work.
        RemoteError: the connection to the device was lost. What was finished stays in `out`.
        BugError: penjing itself has a bug. What was finished stays in `out`.
    """
    options = options or FitOptions()
    with orders.joined():
        if exchange.rank():
            return _followed(task, max_drop)
        result = None
        try:
            result = _led(task, target, max_drop, minutes, out, options)
        finally:
            with suppress(LostProcessError):  # what came of it all counts more
                orders.end(None if result is None else result.to_json())
        return result


def _followed(task: Task | str, max_drop: float | str) -> Result:
    """Train what the first of torchrun's processes asks for; returns its result."""

    def find() -> Task:
        given = find_task(task) if isinstance(task, str) else task
        return prepare(given, Budget.of(max_drop))[0]

    result = follow(find)
    if result is None:
        raise exchange.OtherProcessError("the first process has ended early; see what it printed")
    return Result.from_json(cast(dict[str, Any], result))


def _led(
    task: Task | str,
    target: str,
    max_drop: float | str,
    minutes: float,
    out: Path | str,
    options: FitOptions,
) -> Result:
    schedule = Schedule(options.instruments.clock, 60 * minutes, options.epochs)
    with Interrupt() as interrupt:
        budget = Budget.of(max_drop)
        options.require_possible(minutes)
        device = Device.of(target, options.python, options.ssh_config)
        where = look_at(device) if device else find_target(target)
        runtime = first_runtime(where, floats=True).on(where)
        given = Given(task, where, device, runtime, budget, schedule, options)
        report = options.report is not None
        with hold(Path(out), options.overwrite, options.resume, _endings(where), report) as folder:
            return _fit(given, folder, interrupt.check)


@dataclass(frozen=True)
class Given:
    """The arguments of a fit, with the target resolved."""

    task: Task | str
    target: Target
    device: Device | None
    runtime: Runtime
    budget: Budget
    schedule: Schedule
    options: FitOptions


def _fit(given: Given, folder: Folder, check: Callable[[], None]) -> Result:
    """Run the fit in its locked folder."""
    options = given.options
    task = find_task(given.task) if isinstance(given.task, str) else given.task
    given.schedule.start()
    task, network, estimating, result = _begin(task, given, folder.notes, check)
    ledger = _open_ledger(folder, result, options)
    try:
        if ledger.result.finished:
            return _finished_before(folder, ledger, options.report)
        evaluator = FileEvaluator(
            task, network, given.target, folder.path, options.confidence, options.seed,
            given.runtime, given.device, estimating, options.instruments,
        )  # fmt: skip
        evaluator.networks.damaged = ledger.note
        training = usual_training(task, network, options.seed)
        ways = Ways.on(given.target, given.runtime)
        study = Study(
            given.target,
            ways,
            given.schedule,
            training,
            ledger,
            evaluator,
            known=Known(options.cache if options.epochs is None else None),
            recipes=options.recipes,
        )
        assert task.validation is not None
        _run_or_say_how_to_continue(Run(study, options, task.validation, check))
        if options.report is not None:
            ledger.own(REPORT)
            options.report(ledger.result, folder.path)
        return ledger.result
    finally:
        ledger.close()


def _run_or_say_how_to_continue(run: Run) -> None:
    """Run it. If the device is lost on the way, say how to continue."""
    try:
        run.run()
    except RemoteError as error:
        if run.result.baseline.artifact is None:
            raise
        kept = "finished work is kept; continue with `resume`"
        raise RemoteError(f"{error}; {kept}") from error


def _open_ledger(folder: Folder, result: Result, options: FitOptions) -> Ledger:
    """The ledger of an interrupted fit with the same arguments, or a new one."""
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
            f"{folder.path} has a result of an older penjing, which kept no ledger, so it can be "
            "read but not resumed; start a new fit with `overwrite`"
        )
    folder.begin(result)
    return Ledger.begin(folder.path, result)


def _begin(
    given_task: Task, given: Given, notes: tuple[str, ...], check: Callable[[], None]
) -> tuple[Task, Network, Estimating | None, Result]:
    """The task with validation data, its network, what estimates costs, and the result before the
    first measurement."""
    options, estimating = given.options, None
    baseline = Trial(Candidate((), given.runtime.name), ORIGINAL, Status.BASELINE)
    result = Result(
        task=given_task.name,
        target=given.target.name,
        machine=given.target.description,
        goal=canonical(options.goal),
        max_drop=given.budget.value,
        max_ms=options.max_ms,
        max_kb=options.max_kb,
        confidence=options.confidence,
        seed=options.seed,
        versions=_versions(),
        baseline=baseline,
        best=baseline.key,
        judged_on=judged_on(this_processor()),
    )

    def say(line: str) -> None:
        check()
        if given.schedule.spent() > SOON:
            options.progress(line, 0.0, result)

    task, max_drop, more = prepare(given_task, given.budget, say)
    network = capture(task.model, task.example, source=task.source)
    if given.device is not None or given.target.local:
        given.runtime.require_possible(network, given.target)
    else:
        estimating = Estimating.on(given.target, network)
        estimating.require_time(options.max_ms)
        notes = (estimating.basis, *notes)
    result = replace(
        result,
        max_drop=max_drop,
        notes=(*more, *notes),
        identity=identity(given_task, network),
        estimated_in="" if estimating is None else estimating.unit,
        unit=task.metric.unit,
    )
    options.progress(in_words(max_drop, task), 0.0, result)
    return task, network, estimating, result


def _finished_before(folder: Folder, ledger: Ledger, report: Report | None) -> Result:
    """The result in the folder, with a note that nothing was done. A missing report is written."""
    if report is not None and not all((folder.path / name).exists() for name in REPORT):
        ledger.own(REPORT)
        report(ledger.result, folder.path)
    note = "this fit was already finished, so `resume` had nothing left to do"
    return replace(ledger.result, notes=(*ledger.result.notes, note))


def _endings(where: Target) -> list[str]:
    """The endings of the files that may be delivered for the target."""
    return [ENTRIES[name].ending for name in where.runtimes if not ENTRIES[name].missing]


def _versions() -> dict[str, str]:
    libraries = {name: _version(name) for name in ("penjing", "torch", "onnx", "numpy")}
    runtimes = {name: ENTRIES[name].version or "" for name in installed()}
    return libraries | {"python": platform.python_version()} | runtimes


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # penjing itself, if imported from a folder on the path
        return "not installed"
