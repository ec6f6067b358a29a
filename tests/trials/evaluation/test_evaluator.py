"""The evaluator: what fails is a trial, what is a bug ends the run, and nothing is made twice."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penjing import cli
from penjing.contract import Artifact
from penjing.errors import BugError
from penjing.network import Network, capture
from penjing.network.graph.qparams import qparams_in
from penjing.passes import Pass, PruneChannels, Quantize, Tune
from penjing.trials.evaluation.networks import Networks
from penjing.trials.recipe import to_json
from penjing.trials.result import Result
from penjing.trials.trial import Status
from penjing.tune.options import TuneOptions
from tests.fits import fit
from tests.instruments import Direct, Told, only, small_task


def _raising(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Let whatever is quantized raise while it is lowered."""

    def lower(self: Direct, network: Network, path: Path, floats: str = "float32") -> Artifact:
        if any(True for _ in qparams_in(network)):
            raise error
        return whole(self, network, path, floats)

    whole = Direct.lower
    monkeypatch.setattr(Direct, "lower", lower)
    only(monkeypatch, Direct)


def _instruments() -> dict[str, Any]:
    return {"epochs": 1, "instruments": Told(lambda _: 1.0).instruments()}


def test_a_bug_ends_the_run_and_its_traceback_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _raising(monkeypatch, ZeroDivisionError("division by zero"))
    with pytest.raises(BugError, match=r"^int8: ZeroDivisionError: .*bug in penjing") as error:
        fit(small_task(), out=tmp_path / "out", **_instruments())
    assert isinstance(error.value.__cause__, ZeroDivisionError)
    assert error.value.exit_code == 1
    assert "\n" not in str(error.value)
    assert "in lower" in error.value.traceback.read_text()
    assert error.value.traceback.is_relative_to(tmp_path / "out")
    kept = Result.load(tmp_path / "out")
    assert kept.baseline.artifact is not None
    assert not kept.trials  # no candidate is blamed
    monkeypatch.undo()
    only(monkeypatch, Direct)
    result = fit(small_task(), out=tmp_path / "out", resume=True, **_instruments())
    assert result.find("int8").drop is not None


def test_memory_that_runs_out_is_one_candidates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _raising(monkeypatch, MemoryError("all of it"))
    result = fit(small_task(), out=tmp_path, **_instruments())
    assert result.finished
    assert result.find("int8").status == Status.FAILED
    assert result.find("int8").reason == "MemoryError: all of it"


@pytest.mark.parametrize("debug", [True, False])
def test_the_command_line_says_where_a_bugs_traceback_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, debug: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    _raising(monkeypatch, ZeroDivisionError("division by zero"))
    monkeypatch.setattr("penjing.search.fit.find_task", lambda _: small_task())
    told = Told(lambda _: 1.0).instruments()
    monkeypatch.setattr("penjing.search.options.Instruments", lambda: told)
    words = ["fit", "small", "--epochs", "1", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["penjing", *words, *(["--debug"] if debug else [])])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    lines = [
        line for line in capsys.readouterr().err.splitlines() if not line.startswith(("[", "  "))
    ]
    assert "this is a bug in penjing, please report it with the traceback in" in lines[-1]
    assert (len(lines) > 1) is debug


def test_a_network_is_begun_from_the_longest_part_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied: list[str] = []
    for kind in (PruneChannels, Quantize, Tune):
        whole = kind.apply

        def apply(self: Pass, *args: Any, whole: Callable[..., Network] = whole) -> Network:
            applied.append(type(self).__name__)
            return whole(self, *args)

        monkeypatch.setattr(kind, "apply", apply)
    task = small_task()
    original = capture(task.model, task.example)
    cut = [PruneChannels(0.5), Tune(TuneOptions(epochs=1, distill=0.0), recalibration_samples=0)]
    Networks(task, original, tmp_path).made(to_json([*cut, Quantize()]))
    assert applied == ["PruneChannels", "Tune", "Quantize"]
    applied.clear()
    Networks(task, original, tmp_path).made(to_json([*cut, Quantize(weights=4)]))  # another run
    assert applied == ["Quantize"]
