"""Who judges: samples that the original knows flatter it, and then test samples judge instead."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from penjing.search.budget import Budget
from penjing.search.preflight import prepare
from penjing.tasks.batches import number_of_samples
from penjing.tasks.data import Arrays
from penjing.tasks.task import Batches, Task


class Knowing(nn.Module):
    """Answers what stands in the input, or always the same where that is not to be known."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * x[:, :4] * x[:, 4:]


def _data(samples: int, known: float, kind: str = "arrays") -> Batches:
    """Samples, a share of which is answered rightly."""
    draw = torch.Generator().manual_seed(samples)
    y = torch.arange(samples) % 4
    answer = torch.where(torch.rand(samples, generator=draw) < known, y, (y + 1) % 4)
    noise = 0.01 * torch.rand(samples, 4, generator=draw)
    x = torch.cat([nn.functional.one_hot(answer, 4) + noise, torch.ones(samples, 4)], 1)
    if kind == "loader":
        return DataLoader(TensorDataset(x, y), batch_size=100)
    return Arrays(x, y, batch_size=100)


def _task(known: float, unseen: float, test: int = 6000, kind: str = "arrays") -> Task:
    train = _data(5000, known, kind)
    return Task(Knowing().eval(), torch.ones(2, 8), train, _data(test, unseen, kind))


@pytest.mark.parametrize("kind", ["arrays", "loader"])
def test_half_of_the_test_data_judges_an_original_that_knows_its_training_data(kind: str) -> None:
    task, _, notes = prepare(_task(0.99, 0.85, kind=kind), Budget(1.0))
    assert task.validation is not None
    assert [number_of_samples(part) for part in (task.train, task.validation, task.test)] == [
        5000, 3000, 3000,
    ]  # fmt: skip
    (note,) = [note for note in notes if "knows the training data" in note]
    assert "3000 of 6000 test samples, drawn stratified by class, choose" in note
    chosen, rest = (
        {tuple(row) for x, _ in part for row in x.tolist()} for part in (task.validation, task.test)
    )
    assert not chosen & rest


@pytest.mark.parametrize(
    ("known", "unseen", "test"), [(0.9, 0.9, 6000), (0.85, 0.99, 6000), (0.99, 0.85, 600)]
)
def test_else_training_samples_judge(known: float, unseen: float, test: int) -> None:
    task, _, notes = prepare(_task(known, unseen, test), Budget(1.0))
    assert task.validation is not None
    assert number_of_samples(task.validation) == 500
    assert number_of_samples(task.test) == test
    assert any("500 of 5000 training samples were set aside" in note for note in notes)


def test_validation_data_that_is_given_judges() -> None:
    given = _task(0.99, 0.85)
    given = Task(given.model, given.example, given.train, given.test, _data(700, 0.85))
    task, _, notes = prepare(given, Budget(1.0))
    assert task.validation is not None
    assert number_of_samples(task.validation) == 700
    assert not any("training" in note for note in notes)
