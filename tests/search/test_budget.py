"""Budgets: in points, in a metric's own unit, and as a share of what the original has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from penjing.errors import InputError
from penjing.report.markdown import page
from penjing.search.budget import Budget, in_words
from penjing.tasks.data import Arrays
from penjing.tasks.metrics import Metric
from penjing.tasks.task import Task
from penjing.trials.result import Result
from tests.fits import fit
from tests.instruments import Direct, Told, only

ERROR = Metric("error", lambda y, t: abs(y[:, 0] - t), higher=False, unit="mm")
NEAR = Metric("near", lambda y, t: (abs(y[:, 0] - t) < 0.1) * 1.0)
UNITS = {"points": NEAR, "plain": replace(NEAR, unit=""), "own": ERROR}


def _task(metric: Metric) -> Task:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))
    x = torch.randn(600, 8)
    with torch.no_grad():
        y = model(x)[:, 0] + 0.05 * torch.randn(600)
    train, test, validation = (
        Arrays(x[part], y[part], batch_size=50) for part in torch.arange(600).view(3, 200)
    )

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs[:, 0] - targets).square().mean()

    return Task(model.eval(), x[:2], train, test, validation, loss=loss, metric=metric)


@pytest.mark.parametrize("given", ["", "a lot", "5 %%", "-1", "-1%", "101%", "nan", "inf", -0.1])
def test_what_is_no_budget_is_refused(given: float | str) -> None:
    with pytest.raises(InputError, match="`max_drop` must be points between 0 and 100") as raised:
        Budget.of(given)
    assert str(raised.value).endswith(f"found {given}")


def test_more_than_all_points_is_refused_and_more_of_a_unit_is_not() -> None:
    with pytest.raises(InputError, match=r"between 0 and 100 .*found 100\.5"):
        Budget.of(100.5).in_units(_task(NEAR))
    assert Budget.of(100.5).in_units(_task(ERROR)) == (100.5, ())


@pytest.mark.parametrize("unit", list(UNITS))
def test_a_share_of_the_figure_is_that_in_its_unit(unit: str) -> None:
    task = _task(UNITS[unit])
    assert task.validation is not None
    with torch.no_grad():
        kept = [task.metric.scores(task.model(x).numpy(), y.numpy()) for x, y in task.validation]
    whole = float(np.concatenate(kept).mean())
    value, (note,) = Budget.of("5%").in_units(task)
    assert value == pytest.approx(0.05 * whole * (100 if unit == "points" else 1), rel=1e-3)
    assert f"5 % of the original's {task.metric.name}" in note
    assert f"{value:g}" in note


def test_a_fit_is_held_to_a_budget_in_the_metrics_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, said, trials = Told(lambda name: 0.5 if "int8" in name else 1.0), [], {}
    only(monkeypatch, Direct)
    monkeypatch.setattr("penjing.search.strategies.cutting.CUTS", (0.5,))
    for unit in ("points", "plain"):
        result = fit(
            _task(UNITS[unit]),
            max_drop=20.0 if unit == "points" else 0.2,
            epochs=0.5,
            out=tmp_path / unit,
            instruments=told.instruments(),
            progress=lambda stage, *_: said.append(stage),
        )
        scale = 1 if unit == "points" else 100
        trials[unit] = [
            (trial.title, trial.status, round(scale * trial.drop.drop, 9))
            for trial in result.trials
            if trial.drop
        ]
        again = Result.load(tmp_path / unit)
        assert again.unit == UNITS[unit].unit
        assert {trial.drop.unit for trial in again.trials if trial.drop} == {again.unit}
    assert trials["points"] == trials["plain"] != []
    assert "the budget is at most 20 points lower near" in said
    assert "the budget is at most 0.2 lower near" in said
    text = page(Result.load(tmp_path / "plain"))
    assert "points" not in text.replace("data points", "")
    assert "near %" not in text


def test_lower_may_be_better_and_has_a_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told(lambda name: 0.5 if "int8" in name else 1.0)
    only(monkeypatch, Direct)
    task = _task(ERROR)
    assert in_words(0.5, task) == "the budget is at most 0.5 mm higher error"
    result = fit(
        task,
        max_drop="90%",  # type: ignore[arg-type]
        epochs=0.5,
        out=tmp_path,
        instruments=told.instruments(),
    )
    assert any("90 % of the original's error, which is" in note for note in result.notes)
    assert result.unit == "mm"
    assert " mm" in page(result)
