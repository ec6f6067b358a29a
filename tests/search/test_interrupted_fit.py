"""A fit that is killed, interrupted or resumed: what is on disk is always whole and true."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penjing.errors import InputError
from penjing.files import sha256
from penjing.measure.scores import Means, Scores
from penjing.runtimes.registry import find_runtime
from penjing.search.interrupt import Interrupt
from penjing.search.strategies.rounding import Rounding
from penjing.trials.evaluation.evaluator import FileEvaluator
from penjing.trials.judgement.certify import way_to_chosen
from penjing.trials.result import RECORD, Result
from penjing.trials.trial import Status, Trial
from tests import slow_task
from tests.fits import fit
from tests.instruments import Direct, Told, known, only, small_task
from tests.slow_task import task

TASK = Path(slow_task.__file__)


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, Direct)  # here as in the processes that are interrupted


def _start(out: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.slow_fit", "--out", str(out), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=TASK.parents[1],
    )


def _wait(process: subprocess.Popen[str], until: Callable[[], bool]) -> None:
    end = time.monotonic() + 600
    while not until():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.05)


def _require_whole(out: Path) -> Result:
    """The result reads, and every file that it speaks of is the one that was measured."""
    result = Result.load(out)
    for one in result.everything:
        if one.artifact is not None:
            runtime = find_runtime(one.runtime)
            assert sha256(*runtime.files(out / one.artifact)) == one.sha256
            if one.runtime != Direct.name:  # of which another process knows nothing
                runtime.load(runtime.artifact(out / one.artifact))
    assert result.artifact is not None
    chosen = result.find(result.chosen)
    delivered = find_runtime(chosen.runtime).files(out / result.artifact)
    assert sha256(*delivered) == chosen.sha256
    return result


def _first_cut_is_tuned(out: Path) -> bool:
    return any((out / "networks").glob("*/network.json"))


def _interrupted(out: Path, by: signal.Signals) -> Result:
    process = _start(out)
    _wait(process, lambda: _first_cut_is_tuned(out))
    process.send_signal(by)
    printed, errors = process.communicate(timeout=600)
    assert process.returncode == 130, errors
    assert "--resume continues" in printed
    return _require_whole(out)


def test_an_interrupted_fit_keeps_what_was_finished_and_can_be_resumed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = _interrupted(out, signal.SIGINT)
    assert not result.finished
    assert result.artifact == "model.direct"
    assert result.test_score is None
    assert result.find("int8").status == "kept"
    assert result.find("prune 75 %").reason == "the fit was interrupted before"
    assert result.chosen in (out / "report.md").read_text()

    process = _start(out, "--resume")
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert "prune 25 %, tuned in an earlier run" in errors
    result = _require_whole(out)
    assert result.finished
    assert result.find("prune 25 %").status == "kept"
    both = next(one for one in result.trials if one.title.startswith("prune 25 % + "))
    tuned = [one["method"] for one in both.candidate.recipe]
    assert tuned[:4] == ["PruneChannels", "Compensate", "Tune", "Quantize"]


def test_the_joint_search_is_resumed_where_it_was(tmp_path: Path) -> None:
    out, options = tmp_path / "out", ("--strategy", "joint", "--epochs", "0.5")
    process = _start(out, *options)
    _wait(process, lambda: _first_cut_is_tuned(out))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130, errors
    before = {trial.key for trial in _require_whole(out).trials}

    process = _start(out, *options, "--resume")
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    result = _require_whole(out)
    assert result.finished
    keys = [trial.key for trial in result.trials]
    assert before <= {*keys}
    assert len({*keys}) == len(keys)
    assert any(trial.title.startswith("cut to") for trial in result.trials)


def test_a_terminated_fit_ends_as_an_interrupted_one(tmp_path: Path) -> None:
    assert not _interrupted(tmp_path / "out", signal.SIGTERM).finished


def test_a_killed_fit_leaves_a_valid_result_and_only_the_same_run_resumes_it(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    process = _start(out)
    _wait(process, lambda: (out / "result.json").exists() and bool(Result.load(out).artifact))
    process.kill()
    process.communicate()
    assert not _require_whole(out).finished
    with pytest.raises(InputError, match=r"these have changed: max_drop \(was 20\.0, now 1\.0\)"):
        fit(str(TASK), out=out, goal="size", resume=True)
    with pytest.raises(InputError, match="can't be combined"):
        fit(str(TASK), out=out, resume=True, overwrite=True)
    with pytest.raises(InputError, match="already holds a result; replace it with `overwrite`"):
        fit(str(TASK), out=out)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupt_that_a_library_swallows_is_remembered(name: str) -> None:
    before = signal.getsignal(getattr(signal, name))
    with Interrupt() as interrupt:
        interrupt.check()
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(getattr(signal, name))
        with pytest.raises(KeyboardInterrupt):
            interrupt.check()
    assert signal.getsignal(getattr(signal, name)) is before


def test_an_interrupt_that_is_swallowed_before_the_first_figure_is_remembered(
    tmp_path: Path,
) -> None:
    class Swallowing:
        """Batches of a library that takes an interrupt for its own."""

        def __iter__(self) -> Iterator[Any]:
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            yield from given.train

    given = task()
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        fit(replace(given, train=Swallowing()), minutes=0.1, max_drop=20.0, out=out)
    assert not (out / RECORD).exists()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupt_before_the_first_figure_says_what_is_there(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    process = _start(out)
    _wait(process, lambda: (out / "result.json").exists())
    process.send_signal(getattr(signal, name))
    printed, errors = process.communicate(timeout=600)
    assert process.returncode == 130, errors
    result = Result.load(out)
    assert not result.finished
    if result.baseline.artifact is None:  # else the machine was quicker than this test
        assert errors.splitlines()[-1] == (
            "penjing: interrupted before anything more was finished; "
            f"in {out} --resume continues, --overwrite starts again"
        )
        assert printed == ""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupt_while_a_task_is_made_leaves_nothing_and_says_so(
    tmp_path: Path, name: str
) -> None:
    """CPython remembers one in a text that it executes, and `python -m` would end by the signal."""
    path, out = tmp_path / "own.py", tmp_path / "outer" / "out"
    interrupt = f"import signal; signal.raise_signal(signal.{name})"
    path.write_text(f"def task():\n    exec({interrupt!r})\n")
    command = [sys.executable, "-m", "penjing", "fit", str(path), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 130, done.stderr
    assert done.stderr.splitlines()[-1] == (
        f"penjing: interrupted before anything was finished; nothing was written to {out}"
    )
    assert not out.parent.exists()


def test_what_fails_on_test_is_not_the_answer_and_an_interrupt_between_tests_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested: list[str] = []
    stop_at = "first"

    def test(evaluator: FileEvaluator, trial: Trial, *_: object) -> Scores:
        tested.append(trial.title)
        if len(tested) == 2 and stop_at == "first":
            raise KeyboardInterrupt
        right = [1000, 0] if trial.title == "original" else [700, 300]
        return Means(np.repeat([1.0, 0.0], right))

    def progress(stage: str, share: float, best: str) -> None:
        if stage == "done" and stop_at == "the end":
            raise KeyboardInterrupt

    monkeypatch.setattr(FileEvaluator, "test", test)
    only(monkeypatch, Direct)
    monkeypatch.setattr("penjing.search.strategies.cutting.CUTS", (0.5,))
    monkeypatch.setattr(Rounding, "try_fewer_bits", lambda _: iter(()))
    out = tmp_path / "out"
    told = Told(lambda _: 1.0).instruments()
    options: dict[str, Any] = {
        "goal": "size", "max_drop": 20.0, "epochs": 1, "out": out, "progress": progress,
        "instruments": told,
    }  # fmt: skip

    first = fit(small_task(), **options)
    assert not first.finished
    assert first == _require_whole(out)
    safest = way_to_chosen(first)[0].title
    assert tested == ["original", safest]
    assert (first.test_evaluations, first.test_score) == (0, None)
    assert "the test data was not used" in first.notes[-1]

    tested.clear()
    stop_at = "the end"
    result = fit(small_task(), resume=True, **options)
    assert result.finished
    assert result == _require_whole(out)
    assert tested == ["original", safest]
    assert (result.chosen, result.test_evaluations, result.test_drop) == ("original", 1, None)
    assert result.find(safest).status == Status.OVER_ON_TEST
    assert f"{safest} was selected on validation, but loses 30.00" in result.reason
    assert result.notes[-1].startswith("1 candidate was evaluated on the test data")
