"""The examples and the README's Python run as they are written."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils import _pytree as pytree
from typer.testing import CliRunner

import penjing
from penjing.cli.app import app
from penjing.errors import InputError
from penjing.tasks.metrics import joined, scored
from penjing.tasks.reference import find_task
from penjing.tasks.task import Task, as_call, loss_of
from penjing.trials.result import Result
from tests.instruments import Direct, Told, only

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared"
SMALL = {
    "anomaly.py": ({"width": 64, "epochs": 8, "count": 2000}, 0.9),
    "detector.py": ({"width": 8, "epochs": 16, "count": 800}, 0.05),
    "forecast.py": ({"width": 16, "epochs": 2, "hours": 3000}, 8.0),
    "keywords.py": ({"width": 12, "epochs": 4, "count": 800}, 0.5),
    "segmentation.py": ({"width": 8, "epochs": 8, "count": 400}, 0.2),
    "text.py": ({"width": 48, "depth": 1, "epochs": 2}, 0.4),
}
"""Examples that learn for longer: what makes them small, and what their metric reaches then."""


def _faster(name: str) -> float:
    return 0.5 if "int8" in name else 1.0


def _figure(task: Task) -> float:
    """The task's metric of its test data, as the network in PyTorch has it."""
    kept = []
    for inputs, targets in task.test:
        args, kwargs = as_call(inputs)
        with torch.no_grad():
            outputs = task.model(*args, **kwargs)
        arrays = pytree.tree_map(lambda leaf: leaf.numpy(), targets)
        kept.append(scored(task.metric, outputs.numpy(), arrays))
    return task.metric.figure(joined(kept))


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
        "anomaly.py", "cifar10_resnet20.py", "detector.py", "forecast.py", "keywords.py",
        "my_strategy.py", "own_network.py", "segmentation.py", "text.py",
        "timm_model.py", "two_inputs.py", "vibration.py",
    }  # fmt: skip


@pytest.mark.parametrize("path", (ROOT / "examples").glob("*.py"), ids=lambda path: path.name)
def test_an_example_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 80


@pytest.mark.parametrize("name", ["two_inputs.py", "vibration.py"])
def test_an_example_has_learned_its_task(name: str) -> None:
    task = find_task(str(ROOT / "examples" / name))
    assert _figure(task) > 0.95
    assert penjing.capture(task.model, task.example).history == ()


@pytest.mark.parametrize("name", SMALL)
def test_a_small_example_learns_its_task(name: str) -> None:
    """So little data, and so small a network, that it takes seconds and is worse than the whole."""
    arguments, least = SMALL[name]
    task = find_task(str(ROOT / "examples" / name), **arguments)
    figure = _figure(task)
    assert figure > least if task.metric.higher else figure < least
    inputs, targets = next(iter(task.train))
    args, kwargs = as_call(inputs)
    assert torch.isfinite(loss_of(task, task.model(*args, **kwargs), targets))
    assert penjing.capture(task.model, task.example).history == ()


def test_an_example_takes_arguments() -> None:
    task = find_task(str(ROOT / "examples" / "vibration.py"), width=16)
    assert task.model.get_submodule("head").in_features == 16


def test_a_network_of_timm_gets_a_checkpoint_and_folders_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With something in timm's place, which the tests don't install."""
    save_file({"1.weight": torch.ones(2, 192), "1.bias": torch.zeros(2)}, tmp_path / "best.pth")
    draw = np.random.default_rng(0)
    for split in ("train", "validation", "test"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            pixels = draw.integers(0, 256, (12, 10, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / split / name / "1.png")

    def create(name: str, pretrained: bool, num_classes: int, checkpoint_path: str) -> nn.Module:
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, num_classes))
        model.load_state_dict(load_file(checkpoint_path))
        return model

    wants = {"input_size": (3, 8, 8), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    timm, data = ModuleType("timm"), ModuleType("timm.data")
    monkeypatch.setattr(timm, "create_model", create, raising=False)
    monkeypatch.setattr(timm, "data", data, raising=False)
    monkeypatch.setattr(data, "resolve_model_data_config", lambda model: wants, raising=False)
    monkeypatch.setitem(sys.modules, "timm", timm)
    monkeypatch.setitem(sys.modules, "timm.data", data)

    arguments = {"images": str(tmp_path), "checkpoint": str(tmp_path / "best.pth")}
    task = find_task(str(ROOT / "examples" / "timm_model.py"), **arguments)
    assert task.name == "mobilenetv3_small_100"
    assert task.example.shape == (2, 3, 8, 8)
    assert task.validation is not None
    assert task.model(task.example).shape == (2, 2)


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
    with pytest.raises(InputError, match="PENJING_DATA=FOLDER first"):
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
