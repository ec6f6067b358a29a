"""The command line: a whole fit, and one line with the right exit code for every bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from penjing.cli.app import app
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.tasks.data import Arrays
from penjing.tasks.reference import find_task
from penjing.tasks.task import Task
from penjing.trials.result import Result
from tests.fits import fit
from tests.instruments import Told, only


def _penjing(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "penjing", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fit by the command line; that half the time is int8's and no clock's is told to it."""
    out = tmp_path_factory.mktemp("fit") / "out"
    arguments = ["fit", "digits", "--epochs", "0.5", "--out", str(out), "--json"]
    told = Told(lambda name: 0.5 if "int8" in name else 1.0).instruments()
    with pytest.MonkeyPatch.context() as patch:
        only(patch, OnnxRuntime)
        patch.setattr("penjing.search.strategies.cutting.CUTS", (0.5,))
        patch.setattr("penjing.search.options.Instruments", lambda: told)
        done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.exception
    assert json.loads(done.stdout) == json.loads((out / "result.json").read_text())
    assert "measuring the original" in done.stderr  # the progress, beside the JSON
    return out


def test_the_chosen_file_gives_the_printed_accuracy(fitted: Path) -> None:
    result = Result.load(fitted)
    assert result.finished
    assert result.chosen != "original"
    session = onnxruntime.InferenceSession(str(fitted / "model.onnx"))
    name = session.get_inputs()[0].name
    test = find_task("digits").test
    right = [session.run(None, {name: x.numpy()})[0].argmax(1) == y.numpy() for x, y in test]
    assert float(np.concatenate(right).mean()) == result.test_score


def test_a_result_survives_json_and_the_report_is_there(fitted: Path) -> None:
    result = Result.load(fitted)
    assert Result.from_json(json.loads(json.dumps(result.to_json()))) == result
    page = (fitted / "report.md").read_text()
    assert result.chosen in page
    assert result.verdicts[0].startswith("int8, compared with the original: ")
    assert all(line in page for line in result.verdicts)
    assert (fitted / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert (fitted / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert [row.name for row in result.layers.rows][:2] == ["conv1", "conv2"]
    assert "doesn't report the time of each layer" in result.layers.notes[0]  # nobody told times
    assert all((fitted / str(one.artifact)).exists() for one in result.everything if one.artifact)


def test_bench_of_a_file_with_itself_and_targets(fitted: Path) -> None:
    file = str(fitted / "model.onnx")
    done = _penjing("bench", file, file, "--seconds", "0.5", "--json")
    assert done.returncode == 0
    assert len(json.loads(done.stdout)) == 2
    assert "raspberry-pi-5" in json.loads(_penjing("targets", "--json").stdout)


def _task(**changes: object) -> Task:
    torch.manual_seed(0)
    x, y = torch.randn(180, 3, 8, 8), torch.arange(180) % 4
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))
    splits = [Arrays(x[at : at + 60], y[at : at + 60], batch_size=20) for at in (0, 60, 120)]
    values = {"model": model, "example": x[:2]}
    values |= dict(zip(("train", "validation", "test"), splits, strict=True))
    return Task(**values | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"train": []}, "training data is empty"),
        (
            {"test": [(torch.zeros(4, 8, 8, 3), torch.zeros(4))]},
            "convert them to NCHW",
        ),
        (
            {"train": Arrays(torch.zeros(4, 3, 8, 8), torch.tensor([0, 1, 2, 9]))},
            "0 to 9.*4 outputs",
        ),
        ({}, "no better than chance"),
    ],
)
def test_bad_tasks_end_in_one_line(changes: dict[str, object], text: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=text) as error:
        fit(_task(**changes), out=tmp_path / "out")
    assert error.value.exit_code == 2  # type: ignore[attr-defined]
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out" / "result.json").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("fit", "digits", "--max-drop", "-1"), 2, "--max-drop must be points between 0 and 100"),
        (("fit", "nothing.py"), 2, "nothing.py doesn't exist"),
        (("fit", "digits", "--out", "/proc/penjing"), 4, "can't be written"),
        (("fit", "digits", "--target", "rasberry-pi-5"), 2, "did you mean 'raspberry-pi-5'"),
        (("bench", "nothing.onnx"), 2, "file nothing.onnx doesn't exist"),
    ],
)
def test_bad_arguments_end_in_one_line(
    arguments: tuple[str, ...],
    code: int,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = _penjing(*arguments)
    assert done.returncode == code
    assert text in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


CONTROL_FLOW = """
import torch
from torch import nn
from penjing import Arrays, Task

class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, x):
        if x.sum() > 0:
            return self.linear(x)
        return self.linear(-x)

data = Arrays(torch.randn(8, 3), torch.arange(8) % 4)
rest = Arrays(torch.randn(8, 3), data.y)
task = Task(Odd(), data.x[:2], data, rest, rest)
"""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "x = 1\nraise RuntimeError('no weights')\n",
            "raised RuntimeError at task.py:2: no weights",
        ),
        ("import absent_module\n", "needs the module 'absent_module', which isn't installed"),
        ("x = 1\n", "has no 'task'; wanted a penjing.Task"),
        (CONTROL_FLOW, "at task.py:12: its control flow depends on the data"),
    ],
)
def test_a_task_file_that_cannot_be_used_is_one_line(text: str, line: str, tmp_path: Path) -> None:
    file = tmp_path / "task.py"
    file.write_text(text)
    done = _penjing("fit", str(file), "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert line in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""
