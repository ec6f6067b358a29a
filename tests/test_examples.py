"""The examples and the README's Python run as they are written."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import penjing
from penjing.cli.app import app
from penjing.errors import InputError
from penjing.tasks.reference import find_task
from penjing.trials.result import Result
from tests.instruments import Direct, Slowly, Told, only, small_task

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared"
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def _faster(name: str) -> float:
    return 0.5 if "int8" in name else 1.0


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """What a fit's instruments say; it finds one runtime, and only one cut is on its list."""
    found = Told(_faster)
    only(monkeypatch, Direct)
    monkeypatch.setattr("penjing.search.strategies.cutting.CUTS", (0.5,))
    monkeypatch.setattr("penjing.search.options.Instruments", found.instruments)
    return found


def test_each_example_has_a_test() -> None:
    assert {one.name for one in (ROOT / "examples").glob("*.py")} == {
        "own_network.py", "cifar10_resnet20.py", "my_strategy.py",
    }  # fmt: skip


def test_a_network_of_ones_own_can_be_fitted(told: Told, tmp_path: Path) -> None:
    out = tmp_path / "out"
    example = str(ROOT / "examples" / "own_network.py")
    done = CliRunner().invoke(app, ["fit", example, "--epochs", "0.1", "--out", str(out)])
    assert done.exit_code == 0, done.exception
    result = Result.load(out)
    assert result.finished
    assert result.task == "own-network"
    assert result.chosen in done.stdout


def test_the_images_of_cifar10_are_read_and_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = str(ROOT / "examples" / "cifar10_resnet20.py")
    monkeypatch.delenv("PENJING_DATA", raising=False)
    with pytest.raises(InputError, match="PENJING_DATA isn't set"):
        find_task(example)
    if not DATA.is_dir():
        pytest.skip(f"the data isn't here: no folder {DATA}")
    monkeypatch.setenv("PENJING_DATA", str(DATA))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    task = find_task(example)
    x, y = next(iter(task.test))
    with torch.no_grad():
        right = (task.model(x).argmax(1) == y).float().mean()
    assert len(x) > 50
    assert right > 0.75  # of all images 0.88


@pytest.mark.parametrize("block", BLOCKS, ids=map(str, range(len(BLOCKS))))
def test_what_the_readme_writes_in_python_runs(
    block: str, told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    task = replace(small_task(), loss=Slowly(told, seconds=60.0))
    given = {"model": task.model, "example": task.example, "task": task}
    exec(block, given)
    assert isinstance(given["result"], penjing.Result)
    assert given["result"].finished
    assert (tmp_path / "fitted" / "result.json").exists()
    assert given["smaller"].history
