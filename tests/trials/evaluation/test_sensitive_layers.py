"""Sensitive layers: the ones whose rounding is to blame are named, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from penjing.network import Network, capture
from penjing.passes import Quantize
from penjing.tasks.data import Arrays
from penjing.tasks.metrics import Metric
from penjing.tasks.task import Task
from penjing.trials.evaluation.sensitive_layers import sensitive_layers
from penjing.trials.trial import Status
from tests.fits import fit
from tests.instruments import Direct, Told, only


class Heads(nn.Module):
    """A body whose last layer gives boxes of hundreds of pixels beside scores of less than 1."""

    def __init__(self, apart: float) -> None:
        super().__init__()
        sizes = [(8, 24), (24, 24), (24, 24), (24, 24), (24, 24)]
        self.body = nn.Sequential(*(nn.Sequential(nn.Linear(*size), nn.ReLU()) for size in sizes))
        self.head = nn.Linear(24, 6)
        with torch.no_grad():
            self.head.weight[:3] *= apart

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)).clone()


def _task(apart: float) -> Task:
    torch.manual_seed(0)
    model = Heads(apart).eval()
    x = torch.randn(600, 8)
    with torch.no_grad():
        y = model(x)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        scores = (outputs[:, 3:] - targets[:, 3:]).square().mean()
        return 1000 * scores + (outputs[:, :3] - targets[:, :3]).abs().mean() / apart

    near = Metric("near", lambda y, t: (abs(y[:, 3:] - t[:, 3:]).max(1) < 0.0005) * 1.0)
    train, test, validation = (
        Arrays(x[part], y[part], batch_size=50) for part in torch.arange(600).view(3, 200)
    )
    return Task(model, x[:2], train, test, validation, loss, near)


def _rounded(task: Task) -> tuple[Network, Network]:
    network = capture(task.model, task.example)
    return Quantize(outputs=True)(network, task), network


def test_the_head_is_named_whose_numbers_share_a_scale() -> None:
    task = _task(apart=300.0)
    assert sensitive_layers(*_rounded(task), task) == ["head"]


def test_nothing_is_named_where_rounding_loses_nothing() -> None:
    task = _task(apart=300.0)
    network = capture(task.model, task.example)
    assert sensitive_layers(network, network, task) == []


def test_a_fit_leaves_them_in_float_if_integers_break_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told(lambda name: 0.5 if "int8" in name else 1.0)
    only(monkeypatch, Direct)
    monkeypatch.setattr("penjing.search.strategies.cutting.CUTS", (0.5,))
    monkeypatch.setattr(
        "penjing.trials.evaluation.evaluator.sensitive_layers", lambda *_: ["head", "body.4.0"]
    )
    task = _task(apart=1.0)
    result = fit(
        task, max_drop=10.0, epochs=0.5, out=tmp_path, instruments=told.instruments()
    )  # fmt: skip
    plain = result.find("int8")
    assert plain.status == Status.OVER_BUDGET
    (left,) = (trial for trial in result.trials if "2 sensitive in float" in trial.title)
    assert "whose rounding loses most" in left.reason
    assert "head, body.4.0" in left.reason
    assert left.drop is not None
    assert plain.drop is not None
    assert left.drop.drop < plain.drop.drop
