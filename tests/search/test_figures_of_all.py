"""Fits whose budget is about a figure of all samples, from the data to the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import penjing
from penjing.contract import Array
from penjing.measure.scores import judge
from penjing.report.markdown import page
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.tasks.data import Arrays
from penjing.tasks.metrics import Metric
from penjing.tasks.task import Task
from penjing.trials.trial import Status
from tests.fits import fit


def _area(kept: Array) -> float:
    """How often a positive sample has a higher score than another one."""
    positive, rest = (kept[kept[:, 1] == label, 0] for label in (1, 0))
    if not len(positive) or not len(rest):
        return float("nan")
    return float((positive[:, None] > rest[None]).mean())


METRICS = {
    "area": Metric("area under the curve", lambda y, t: np.stack([y[:, 0], t > 0], 1), _area),
    "error": Metric("error", lambda y, t: abs(y[:, 0] - t), higher=False),
}


def _task(metric: Metric) -> Task:
    """A network that is right about noise, because its own answers are what it should say."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1)
    )
    x = torch.randn(600, 8)
    with torch.no_grad():
        y = model(x)[:, 0]
        model[4].bias -= y.median()
        y -= y.median()
    data = Arrays(x, y, batch_size=50)
    train, test, validation = (data.subset(part) for part in torch.arange(600).view(3, 200))

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (outputs[:, 0] - targets).square().mean()

    return Task(model.eval(), x[:2], train, test, validation, loss=loss, metric=metric)


@pytest.mark.parametrize("name", list(METRICS))
def test_a_fit_keeps_its_budget_by_the_figure_of_the_file(tmp_path: Path, name: str) -> None:
    metric = METRICS[name]
    task = _task(metric)
    result = fit(task, max_drop=5.0, epochs=0.5, out=tmp_path / "out")
    original, answer = result.baseline, result.answer
    assert original.measurement.score == pytest.approx(1.0 if metric.higher else 0.0, abs=1e-6)
    integers = result.trials[0]
    assert integers.status == Status.KEPT
    assert integers.drop is not None
    sign = 100 if metric.higher else -100
    assert integers.measurement.score is not None
    assert original.measurement.score is not None
    lost = sign * (original.measurement.score - integers.measurement.score)
    assert integers.drop.drop == pytest.approx(lost)
    assert 0 <= integers.drop.drop <= integers.drop.bound
    assert answer.artifact is not None
    file = OnnxRuntime().artifact(tmp_path / "out" / answer.artifact)
    on_test = judge(OnnxRuntime().load(file), task.test, metric).figure
    assert result.test_score == pytest.approx(on_test)
    assert metric.name in page(result)


def test_a_file_is_proven_by_the_figure(tmp_path: Path) -> None:
    task = _task(METRICS["error"])
    network = penjing.capture(task.model, task.example)
    proof = penjing.export(network, task, "onnxruntime", "int8", out=tmp_path / "out")
    assert proof.score > proof.original == pytest.approx(0.0, abs=1e-6)
    assert proof.drop.drop == pytest.approx(100 * (proof.score - proof.original))
    again = penjing.verify(proof.path, task)
    assert again.score == pytest.approx(proof.score)


def test_a_figure_that_looks_at_nothing_is_refused(tmp_path: Path) -> None:
    blind = Metric("blind", lambda y, t: np.ones((len(t), 2)), over=lambda kept: float(kept.mean()))
    with pytest.raises(penjing.InputError, match="whatever the outputs are"):
        fit(_task(blind), out=tmp_path / "out")
