"""A file's figure, as a process that has neither penjing nor torch finds it, is the one told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import figure_alone
import numpy as np
import pytest
from without_penjing import alone, examples, saved

import penjing
from penjing import detection

ROOT = Path(__file__).parents[1]
SMALL = {"anomaly": {"width": 32, "epochs": 4, "count": 1000}, "two_inputs": {}}


@pytest.mark.parametrize("name", SMALL)
def test_the_file_alone_gives_the_figure_that_is_told(name: str, tmp_path: Path) -> None:
    task = penjing.find_task(str(ROOT / "examples" / f"{name}.py"), **SMALL[name])
    network = penjing.capture(task.model, task.example)
    proof = penjing.export(network, task, "onnxruntime", "int8", out=tmp_path)
    saved(task, proof.path, tmp_path / "test.npz")
    told = alone(proof.path, tmp_path / "test.npz", name)
    assert told["samples"] == 2000
    assert told["figure"] == pytest.approx(proof.score, abs=1e-6)
    assert proof.score > 0.6  # so that it is no luck


def test_that_process_can_import_no_penjing(tmp_path: Path) -> None:
    """Where it is installed; the file that it is given isn't there, and so it stops soon."""
    script = ROOT / "benchmarks" / "figure_alone.py"
    lines = f"""
import contextlib, runpy, sys
sys.argv = ["", "no.onnx", {str(tmp_path / "no.npz")!r}, "text"]
with contextlib.suppress(FileNotFoundError):
    runpy.run_path({str(script)!r}, run_name="__main__")
import penjing
"""
    done = subprocess.run([sys.executable, "-I", "-c", lines], capture_output=True, text=True)
    assert "import of penjing halted" in done.stderr


def test_there_is_a_figure_for_each_example_that_is_a_task(tmp_path: Path) -> None:
    files = {path.stem for path in (ROOT / "examples").glob("*.py")} - {"my_strategy"}
    assert files == set(figure_alone.FIGURES) == set(examples(tmp_path))


@pytest.mark.parametrize("seed", range(3))
def test_its_mean_average_precision_is_penjings(seed: int) -> None:
    """Both are written apart: of boxes that are about where the targets are, and of others."""
    draw = np.random.default_rng(seed)
    corner, size = draw.uniform(0, 40, (6, 4, 2)), draw.uniform(8, 20, (6, 4, 2))
    classes = draw.integers(-1, 3, (6, 4, 1))
    there = np.concatenate([corner, corner + size, classes], axis=2)
    near = np.concatenate([there[:, :, :4]] * 3, axis=1) + draw.normal(0, 1.5, (6, 12, 4))
    scores = draw.random((6, 12, 3)) + np.tile(0.8 * np.eye(4)[classes[..., 0]][..., :3], (1, 3, 1))
    y = np.concatenate([near, scores], axis=2)
    metric = detection.mean_average_precision(detection.surest, detection.unpadded)
    figure = metric.figure(metric.scores(y, there))
    assert 0.05 < figure < 0.95
    assert figure_alone.mean_average_precision(y, {"target": there}) == pytest.approx(figure)
