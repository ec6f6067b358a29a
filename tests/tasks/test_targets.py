"""Targets in any structure: the same answers, however they are held, and a line for what isn't."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, TensorDataset

from penjing.errors import InputError
from penjing.search.advice.advise import AdviceOptions, advise
from penjing.tasks.checks import check
from penjing.tasks.data import Arrays
from penjing.tasks.metrics import Metric
from penjing.tasks.overlap import require_apart
from penjing.tasks.splits import with_validation
from penjing.tasks.targets import Targets, as_targets, picked, samples_in
from penjing.tasks.task import Task
from tests.fits import fit
from tests.instruments import Direct, Told, only

HELD: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Any]]] = {
    "tensor": (lambda y: y, lambda held: held),
    "dict": (
        lambda y: {"box": y[:, :4], "size": y[:, 4:]},
        lambda held: _joined([held["box"], held["size"]], 1),
    ),
    "tuple": (lambda y: (y[:, :4], y[:, 4:]), lambda held: _joined([*held], 1)),
    "list": (
        lambda y: [{"box": row[:4], "size": float(row[4]), "name": "boat"} for row in y],
        lambda held: _of_samples([[*sample["box"], sample["size"]] for sample in held]),
    ),
}
"""For each structure, how five numbers per sample are put into it, and taken out again."""


def _joined(parts: Any, dim: int) -> Any:
    return np.concatenate(parts, dim) if isinstance(parts[0], np.ndarray) else torch.cat(parts, dim)


def _of_samples(rows: list[list[Any]]) -> Any:
    of_torch = isinstance(rows[0][0], Tensor)
    return torch.tensor(rows) if of_torch else np.array(rows)


def _task(structure: str) -> Task:
    into, out = HELD[structure]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU())
    model.append(nn.Linear(24, 5))
    x = torch.randn(480, 6)
    with torch.no_grad():
        y = model(x) + 0.1 * torch.randn(480, 5)

    def loss(outputs: Tensor, targets: Targets) -> Tensor:
        return (outputs - out(targets)).square().mean()

    def near(outputs: Any, targets: Targets) -> Any:
        return 1.0 * (abs(outputs - out(targets)).max(1) < 0.3)

    train, test, validation = (
        Arrays(x[part], into(y[part]), batch_size=40) for part in torch.arange(480).view(3, 160)
    )
    return Task(
        model.eval(), x[:2], train, test, validation, loss, Metric("near", near), source=structure
    )


def test_a_fit_finds_the_same_however_targets_are_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, found = Told(lambda name: 0.5 if "int8" in name else 1.0), {}
    only(monkeypatch, Direct)
    monkeypatch.setattr("penjing.search.strategies.cutting.CUTS", (0.5,))
    for structure in HELD:
        result = fit(
            _task(structure),
            max_drop=30.0,
            epochs=0.5,
            out=tmp_path / structure,
            instruments=told.instruments(),
        )
        found[structure] = [
            (trial.title, trial.drop and trial.drop.drop, trial.measurement.file_bytes)
            for trial in result.trials
        ]
    assert len(found["tensor"]) > 1
    assert all(trials == found["tensor"] for trials in found.values())


def test_data_is_split_and_compared_however_targets_are_held() -> None:
    sizes = set()
    for structure in HELD:
        task = _task(structure)
        given = Task(task.model, task.example, task.train, task.test, None, task.loss, task.metric)
        split, note = with_validation(given)
        assert "16 of 160" in note
        check(split)
        assert require_apart(split) == ()
        sizes.add(sum(samples_in(targets) for _, targets in split.train))
        same = Task(task.model, task.example, task.train, task.train, None, task.loss, task.metric)
        with pytest.raises(InputError, match="test data is training data"):
            require_apart(same)
    assert sizes == {144}


def test_a_data_loader_may_give_boxes_of_any_number() -> None:
    x = torch.randn(40, 6)

    def together(samples: list[Any]) -> tuple[Tensor, list[Any]]:
        return torch.stack([row for (row,) in samples]), [
            {"boxes": torch.zeros(place % 3, 4)} for place in range(len(samples))
        ]

    loader = DataLoader(TensorDataset(x), 8, collate_fn=together)

    def loss(outputs: Tensor, targets: Targets) -> Tensor:
        return outputs.square().mean() + sum(len(sample["boxes"]) for sample in targets)

    metric = Metric("size", lambda y, t: np.array([len(sample["boxes"]) for sample in t]) + y[:, 0])
    task = Task(nn.Linear(6, 5), x[:2], loader, loader, None, loss, metric)
    checked, _ = check(task)
    for _, targets in checked.train:
        assert [len(sample["boxes"]) for sample in targets] == [0, 1, 2, 0, 1, 2, 0, 1]
    split, note = with_validation(task)
    assert "4 of 40" in note
    assert sum(samples_in(targets) for _, targets in split.train) == 36


@pytest.mark.parametrize("structure", list(HELD))
def test_picked_samples_are_those_of_the_tensor(structure: str) -> None:
    into, out = HELD[structure]
    y, index = torch.randn(9, 5), torch.tensor([7, 0, 3])
    held = as_targets(into(y), 9, "targets")
    assert samples_in(held) == 9
    assert torch.allclose(out(picked(held, index)).float(), y[index])


def test_a_list_of_arrays_of_all_samples_is_a_tuple_and_one_of_samples_stays() -> None:
    whole = [np.zeros((3, 4)), np.zeros(3, np.int32)]  # as a DataLoader puts pairs together
    assert isinstance(as_targets(whole, 3, "targets"), tuple)
    ragged = [np.zeros((n, 4)) for n in (2, 0, 5)]
    assert [len(boxes) for boxes in as_targets(ragged, 3, "targets")] == [2, 0, 5]
    assert all(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(as_targets(whole, 3, "")))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ({"boxes": torch.zeros(3, 4), "classes": torch.zeros(2)}, "differ in length: 3, 2"),
        ({}, "are empty"),
        ({"boxes": torch.tensor(1.0)}, "are a single number"),
        ([object(), object(), object()], "contain object"),
        ({"boxes": torch.full((3, 4), torch.nan)}, "targets contain NaN"),
        ([{"size": float("inf")}] * 3, "targets contain NaN"),
        ([{"size": 1.0}] * 2, "3 inputs but 2 targets"),
        (["a"] * 3, r"labels are text \('a'\), but the model has 5 outputs"),
    ],
)
def test_targets_that_cannot_be_used_are_refused_in_a_line(targets: Any, message: str) -> None:
    x = torch.randn(3, 6)
    data = [(x, targets)]
    task = Task(nn.Linear(6, 5), x, data, data, data)
    with pytest.raises(InputError, match=message) as raised:
        fit(task, max_drop=1.0, epochs=0.5, out=Path("never"))
    assert "\n" not in str(raised.value)


def test_advice_takes_targets_of_any_structure(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, Direct)

    def ratio(name: str) -> float:
        told.now += 30.0  # two files are all that there is time for
        return 1.0

    told, tried = Told(ratio), {}
    for structure in ("tensor", "list"):
        options = AdviceOptions(instruments=told.instruments())
        outlooks = advise(_task(structure), "cpu", 0.5, options).outlooks
        tried[structure] = [(one.title, one.figures and one.figures.loss) for one in outlooks]
    assert tried["tensor"] == tried["list"]
    assert any(loss is not None for _, loss in tried["list"])
