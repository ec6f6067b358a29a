"""Fit: make candidates, measure each on its file, choose the best that keeps the budget."""

from __future__ import annotations

import math
import platform
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from penjing.contract import Array, Artifact, Measurement, Session, as_arrays
from penjing.data import check, with_validation
from penjing.errors import InputError, PenjingError
from penjing.files import require_writable_folder, write_atomically
from penjing.measure import costs, latency, memory, scores
from penjing.measure.parity import parity
from penjing.network import Network, capture
from penjing.runtimes.onnxruntime import OnnxRuntime, weight_bytes
from penjing.search import recipes
from penjing.search.preflight import check_options, claim_folder, clear
from penjing.search.recipes import Trial
from penjing.search.result import Candidate, Result, choose, with_pareto
from penjing.targets import Target, find_target
from penjing.task import Batches, Task

Progress = Callable[[str, float, str], None]
"""Called with the stage, the share done (0..1) and the best candidate so far."""
BASELINE = "original"
RESERVED_SHARE = 0.35  # of the minutes, for everything but training
LATENCY_SECONDS = 3.0


@dataclass
class _Run:
    """The state of one fit."""

    task: Task
    target: Target
    out: Path
    result: Result
    progress: Progress
    end: float
    runtime: OnnxRuntime = field(default_factory=OnnxRuntime)
    sessions: dict[str, Session] = field(default_factory=dict)
    networks: dict[str, Network] = field(default_factory=dict)
    scores: dict[str, Array] = field(default_factory=dict)
    share: float = 0.0

    @property
    def one(self) -> Any:
        """A single sample of the example, for timing."""
        return torch.utils._pytree.tree_map(lambda x: x[:1], as_arrays(self.task.example))

    def say(self, stage: str, share: float | None = None) -> None:
        self.share = self.share if share is None else share
        self.progress(stage, self.share, self.result.chosen)

    def keep(self, result: Result) -> None:
        """Take a new state and write it, so that a kill leaves the last one."""
        self.result = result
        result.save(self.out)


def fit(
    task: Task,
    target: str = "cpu",
    max_drop: float = 1.0,
    minutes: float = 10.0,
    out: Path | str = "fitted",
    *,
    goal: str = "latency",
    seed: int = 0,
    confidence: float = 0.95,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Compress the task's model for the target, within an accuracy budget.

    A candidate keeps the budget if the upper confidence bound of its drop on the validation data
    is at most `max_drop`. The test data is touched once, for the chosen file and the original; if
    the chosen one's drop there is over the budget, the answer is the original.

    Args:
        max_drop: budget in points (hundredths of the metric), 0..100.
        minutes: about how long to take; at least one candidate is always tried.
        out: folder for `model.onnx`, `result.json` and every candidate's file.
        goal: `"latency"` or `"size"`.

    Raises:
        PenjingError: with one line, before any long work.
    """
    check_options(max_drop, minutes, goal, confidence)
    device = find_target(target)
    if not device.local:
        raise InputError(
            f"target {target!r} is described but not reachable from here, so nothing could be "
            "measured on it; use --target cpu"
        )
    folder = claim_folder(Path(out), overwrite)
    task, note = with_validation(task)
    check(task)
    network = capture(task.model, task.example, source=task.source)
    problems = OnnxRuntime().problems(network, device)
    if problems:
        raise InputError(problems[0])
    clear(folder)
    result = Result(
        task=task.name,
        target=device.name,
        machine=device.description,
        goal=goal,
        max_drop=max_drop,
        confidence=confidence,
        seed=seed,
        versions=_versions(),
        baseline=Candidate(BASELINE, (), "baseline"),
        notes=(note,) if note else (),
    )
    start = time.monotonic()
    run = _Run(task, device, folder, result, progress or _silent, start + 60 * minutes)
    with _terminated_as_interrupt():
        _search(run, network, seed, 60 * minutes)
    return run.result


def _search(run: _Run, network: Network, seed: int, seconds: float) -> None:
    """Everything that takes long; an interrupt leaves what is finished."""
    _add_baseline(run, network)
    try:
        trials = recipes.trials(run.target, 1.0, seed)
        trainings = sum(1 for one in trials if one.base is None and len(one.recipe) > 1)
        left = max(run.end - time.monotonic(), 1.0)
        each = max(left * (1 - RESERVED_SHARE) / trainings, 1.0)
        trials = recipes.trials(run.target, each, seed)
        for number, trial in enumerate(trials):
            share = 0.05 + 0.75 * number / len(trials)
            if (
                number
                and time.monotonic() + 0.5 * each > run.end - 0.1 * seconds
                and not trial.base
            ):
                note = f"{trial.name} and what builds on it: no time left"
                run.keep(replace(run.result, notes=(*run.result.notes, note)))
                continue
            if trial.base is None or trial.base in run.networks:
                run.say(trial.name, share)
                _try(run, trial, share, 0.75 / len(trials))
        _compare_again(run)
        _prove_on_test(run)
    except KeyboardInterrupt:
        note = "interrupted: what was finished by then is measured, the test data was not touched"
        run.keep(replace(run.result, notes=(*run.result.notes, note)))
        _deliver(run)


def _add_baseline(run: _Run, network: Network) -> None:
    run.say("measuring the original", 0.01)
    path, artifact = _lower(run, network, BASELINE)
    assert run.task.validation is not None
    run.scores[BASELINE] = scores.score(
        run.sessions[BASELINE], run.task.validation, run.task.metric
    )
    targets = np.concatenate([as_arrays(y) for _, y in run.task.validation])
    if run.task.metric.name == "accuracy" and scores.is_at_chance(run.scores[BASELINE], targets):
        shutil.rmtree(run.out / "candidates", ignore_errors=True)
        raise InputError(
            f"the model's accuracy is at chance: {run.scores[BASELINE].mean():.1%} on "
            f"{len(targets)} validation samples, and always answering the commonest class gives "
            f"{scores.chance(targets):.1%}; check the labels, the preprocessing and the checkpoint"
        )
    measured = _measure(run, network, BASELINE, artifact)
    baseline = Candidate(BASELINE, (), "baseline", "", measured, path, artifact.sha256, pareto=True)
    run.networks[BASELINE] = network
    run.keep(replace(run.result, baseline=baseline, reason="nothing else is finished yet"))
    _deliver(run)


def _try(run: _Run, trial: Trial, share: float, width: float) -> None:
    """One candidate from recipe to measurement; a failure is recorded and the run goes on."""
    start = time.monotonic()
    base = run.networks[trial.base or BASELINE]
    before = run.result.find(trial.base).recipe if trial.base else ()
    recipe = (*before, *recipes.to_json(trial.recipe))
    try:
        network = base
        for one in trial.recipe:
            network = one(
                network,
                run.task,
                lambda line, done: run.say(f"{trial.name}: {line}", share + 0.8 * width * done),
            )
        path, artifact = _lower(run, network, trial.name)
        assert run.task.validation is not None
        run.scores[trial.name] = scores.score(
            run.sessions[trial.name], run.task.validation, run.task.metric
        )
        measured = _measure(run, network, trial.name, artifact)
        status, reason = _judge(run, measured)
        candidate = Candidate(
            trial.name, recipe, status, reason, measured, path, artifact.sha256,
            time.monotonic() - start,
        )  # fmt: skip
        run.networks[trial.name] = network
    except PenjingError as error:
        candidate = Candidate(trial.name, recipe, "failed", str(error))
    except Exception as error:
        line = (str(error).splitlines() or [""])[0]
        candidate = Candidate(trial.name, recipe, "failed", f"{type(error).__name__}: {line[:200]}")
    _add(run, candidate)


def _add(run: _Run, candidate: Candidate) -> None:
    everything = with_pareto((run.result.baseline, *run.result.candidates, candidate))
    best, why = choose(everything[0], everything[1:], run.result.goal, run.result.max_drop)
    run.keep(
        replace(
            run.result,
            baseline=everything[0],
            candidates=everything[1:],
            chosen=best.name,
            reason=why,
        )
    )


def _lower(run: _Run, network: Network, name: str) -> tuple[str, Artifact]:
    folder = run.out / "candidates" / name.replace(" ", "").replace("%", "").replace("+", "-")
    require_writable_folder(folder)
    artifact = run.runtime.lower(network, folder / f"model{run.runtime.ending}")
    run.sessions[name] = run.runtime.load(artifact)
    return str(artifact.path.relative_to(run.out)), artifact


def _measure(run: _Run, network: Network, name: str, artifact: Artifact) -> Measurement:
    pair = {BASELINE: run.sessions[BASELINE], name: run.sessions[name]}
    times = latency.compare(pair, run.one, BASELINE, LATENCY_SECONDS, run.result.seed)
    held_out: Batches = run.task.validation or ()
    operators = costs.costs(network)
    found = parity(network, run.sessions[name], held_out)
    if not math.isfinite(found.max_difference):
        raise InputError("the file's outputs are NaN or infinite on validation data")
    return Measurement(
        file_bytes=artifact.file_bytes,
        weight_bytes=weight_bytes(artifact.path),
        peak_activation_bytes=costs.peak_activation_bytes(network),
        peak_process_bytes=memory.peak_process_bytes(artifact.path, run.one),
        macs=sum(one.macs for one in operators),
        params=sum(one.params for one in operators),
        score=float(run.scores[name].mean()),
        metric=run.task.metric.name,
        latency=times[name],
        drop=scores.drop(run.scores[BASELINE], run.scores[name], run.result.confidence),
        parity=found,
    )


def _judge(run: _Run, measured: Measurement) -> tuple[str, str]:
    assert measured.drop is not None
    found, budget = measured.drop, run.result.max_drop
    if found.bound <= budget:
        return "kept", f"drop {found.drop:.2f}, bound {found.bound:.2f} points"
    what = "drop" if found.drop > budget else "bound of the drop"
    figure = found.drop if found.drop > budget else found.bound
    return "over budget", f"{what} {figure:.2f} points, budget {budget:g}"


def _compare_again(run: _Run) -> None:
    """The last word on latency: everything that keeps the budget, side by side in one sitting."""
    kept = [one for one in run.result.candidates if one.status == "kept"]
    if not kept:
        return
    run.say("timing all that keep the budget side by side", 0.85)
    names = [BASELINE, *(one.name for one in kept)]
    some = {name: run.sessions[name] for name in names}
    times = latency.compare(some, run.one, BASELINE, 2 * LATENCY_SECONDS, run.result.seed)
    new = [
        replace(one, measurement=replace(one.measurement, latency=times[one.name]))
        if one.name in times
        else one
        for one in run.result.everything
    ]
    everything = [_gain(one, new) for one in with_pareto(new)]
    best, why = choose(everything[0], everything[1:], run.result.goal, run.result.max_drop)
    run.keep(
        replace(
            run.result, baseline=everything[0], candidates=tuple(everything[1:]),
            chosen=best.name, reason=why,
        )
    )  # fmt: skip


def _gain(one: Candidate, others: list[Candidate]) -> Candidate:
    """Say when a longer recipe is no faster than one of its parts."""
    part = next((other for other in others if other.name == "int8"), None)
    mine = one.measurement.latency
    if part is None or mine is None or one is part or not one.name.endswith("+ int8"):
        return one
    theirs = part.measurement.latency
    if part.status != "kept" or theirs is None or mine.ratio_high < theirs.ratio_low:
        return one
    gain = f"no faster than int8 alone ({mine.ratio / theirs.ratio:.2f} of its time)"
    return replace(one, reason=f"{one.reason}; {gain}")


def _prove_on_test(run: _Run) -> None:
    """The one look at the test data; it can only send us back to the original."""
    run.say("testing the chosen file and the original", 0.92)
    chosen = run.result.chosen
    original = scores.score(run.sessions[BASELINE], run.task.test, run.task.metric)
    mine = scores.score(run.sessions[chosen], run.task.test, run.task.metric)
    found = scores.drop(original, mine, run.result.confidence)
    result = replace(
        run.result,
        test_baseline=float(original.mean()),
        test_score=float(mine.mean()),
        test_drop=found,
        finished=True,
    )
    if found.drop > run.result.max_drop:
        why = f"{chosen} kept the budget on validation but lost {found.drop:.2f} points on test"
        result = replace(result, chosen=BASELINE, reason=why, test_score=float(original.mean()))
    run.result = result
    _deliver(run)
    run.say("done", 1.0)


def _deliver(run: _Run) -> None:
    """Copy the chosen file to `model.onnx`."""
    chosen = run.result.find(run.result.chosen)
    if chosen.artifact is None:
        return
    name = f"model{run.runtime.ending}"
    write_atomically(run.out / name, (run.out / chosen.artifact).read_bytes())
    run.keep(replace(run.result, artifact=name))


def _versions() -> dict[str, str]:
    names = ("penjing", "torch", "onnx", "onnxruntime", "numpy")
    return {name: version(name) for name in names} | {"python": platform.python_version()}


@contextmanager
def _terminated_as_interrupt() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does; only the main thread may say so."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    try:
        old = signal.signal(signal.SIGTERM, stop)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


def _silent(stage: str, share: float, best: str) -> None:
    """No display."""
