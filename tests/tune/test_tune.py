"""Tuning: what it promises about weights, losses, seeds and several processes."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from penjing.errors import InputError
from penjing.network import Network, capture
from penjing.passes import Binarize, Pass, PruneChannels, Quantize, Ternarize, Tune
from penjing.tasks.batches import number_of_batches
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task
from penjing.tune.distill import soft_loss
from penjing.tune.optimizer import one_cycle
from penjing.tune.options import TuneOptions
from penjing.tune.train import _prepared, train, validate
from tests.reference_networks import build

QUICK = TuneOptions(epochs=1, lr=0.01)


def _task(name: str = "plain_cnn", **options: Any) -> tuple[Task, Network]:
    model, x = build(name)
    data = Arrays(x.repeat(4, 1, 1, 1), torch.arange(16) % 10, batch_size=4, **options)
    return Task(model, x[:2], data, data, data), capture(model, x[:2])


def _changed(task: Task, **changes: Any) -> Task:
    return dataclasses.replace(task, **changes)


def test_tuning_never_ends_worse_than_it_began() -> None:
    task, network = _task()
    assert isinstance(task.test, Arrays)
    with torch.no_grad():
        answers = network(task.test.x).argmax(1)
    right = Arrays(task.test.x, answers, batch_size=8)
    task = _changed(task, validation=right)
    wild = TuneOptions(epochs=2, lr=0.05, distill=0.0)
    assert validate(network, task) == 1.0
    assert validate(train(network, _changed(task, validation=None), wild).network, task) < 1.0
    assert validate(train(network, task, wild).network, task) == 1.0


def test_a_pruned_network_comes_nearer_to_its_teacher() -> None:
    task, network = _task("resnet_a", shuffle=True)
    pruned = PruneChannels(0.5)(network, task)
    tuned = Tune(TuneOptions(epochs=8, lr=0.01, distill=1.0), 16)(
        pruned, _changed(task, validation=None)
    )
    assert isinstance(task.test, Arrays)
    x = task.test.x
    with torch.no_grad():
        before, after = (soft_loss(one(x), network(x), 4.0) for one in (pruned, tuned))
    assert after < before / 2


def test_the_same_seed_gives_the_same_bits_and_leaves_the_random_state() -> None:
    task, network = _task("alexnet", shuffle=True, augment="flip-crop")
    task = _changed(task, validation=None)
    state = torch.random.get_rng_state()
    one, two = (train(network, task, QUICK).network for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    other = train(network, task, dataclasses.replace(QUICK, seed=1)).network
    keys = [key for key in one.state_dict() if key.endswith("weight")]
    assert all(torch.equal(one.state_dict()[key], two.state_dict()[key]) for key in keys)
    assert any(not torch.equal(one.state_dict()[key], other.state_dict()[key]) for key in keys)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_either_precision_gives_float32_weights_in_plain_order(precision: str) -> None:
    task, network = _task("mobilenet_v2")
    tuned = train(network, task, dataclasses.replace(QUICK, precision=precision)).network
    assert all(one.dtype is torch.float32 for one in tuned.parameters())
    assert all(one.is_contiguous() for one in tuned.parameters())


@pytest.mark.parametrize(
    ("rounding", "mixed"),
    [(None, True), (Ternarize(), True), (Quantize(activations=None), True), (Quantize(), False),
     (Binarize(), False)],
)  # fmt: skip
def test_integer_values_and_signs_are_trained_in_float32(
    rounding: Pass | None, mixed: bool
) -> None:
    """Their levels and sums aren't in bfloat16; those of weights are as good as all others."""
    task, network = _task("plain_cnn")
    rounded = network if rounding is None else rounding(network, task)
    options = dataclasses.replace(QUICK, precision="bfloat16")
    assert _prepared(rounded, task, options, torch.device("cpu")).mixed == mixed


def test_soft_loss_by_hand() -> None:
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 2 * math.log(3)]])
    # at T = 2 the teacher says (1/4, 3/4), the student (1/2, 1/2)
    expected = 4 * (0.25 * math.log(0.5) + 0.75 * math.log(1.5))
    assert math.isclose(soft_loss(student, teacher, 2.0).item(), expected, rel_tol=1e-6)
    per_pixel = soft_loss(student[..., None].expand(1, 2, 5), teacher[..., None].expand(1, 2, 5), 2)
    assert math.isclose(per_pixel.item(), expected, rel_tol=1e-6)


def test_a_history_says_for_how_long_a_network_was_trained() -> None:
    task, network = _task()
    task = _changed(task, validation=None)
    tune = Tune(TuneOptions(epochs=8, lr=1e-3), recalibration_samples=0)
    seconds = itertools.count()
    plan = tune.plan(network, task)
    cut_off = tune.apply(network, plan, task, clock=lambda: float(next(seconds)), seconds=5.0)
    assert cut_off.history[-1].options["options"]["epochs"] == 5 / number_of_batches(task.train)
    assert "trains for 1.25 epochs of 8 with" in cut_off.history[-1].summary
    whole = tune.apply(network, plan, task)
    assert whole.history[-1] == plan


def test_one_cycle_rises_to_its_peak_and_falls_to_its_end() -> None:
    rates = [one_cycle(step / 100) for step in range(101)]
    assert rates[20] == max(rates) == 1.0
    assert rates[:21] == sorted(rates[:21])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert math.isclose(rates[-1], 1e-3)


def test_the_clock_ends_a_training_and_patience_too() -> None:
    task, network = _task()
    seen: list[float] = []
    endless = TuneOptions(epochs=1e6, lr=1e-3)
    seconds = itertools.count()

    def clock() -> float:
        return float(next(seconds))

    task = _changed(task, validation=None)
    train(network, task, endless, lambda _, share: seen.append(share), clock, 5.0)
    assert seen == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    with pytest.raises(InputError, match="seconds must be a positive number; found 0"):
        train(network, task, endless, seconds=0)
    seen.clear()
    frozen = TuneOptions(epochs=100, lr=1e-12, patience=2)
    task, network = _task()
    train(network, task, frozen, lambda _, share: seen.append(share))
    assert len(seen) == 3 * 4  # one epoch to compare with, then two without gain


def test_batch_norms_without_running_statistics_train_and_evaluate() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten(),
        nn.Linear(144, 4),
    )  # fmt: skip
    x = torch.randn(8, 3, 8, 8)
    network = capture(model, x[:2])
    torch.testing.assert_close(network(x), model.eval()(x))
    data = Arrays(x, torch.arange(8) % 4, batch_size=4)
    tuned = Tune(QUICK, recalibration_samples=8)(network, Task(model, x[:2], data, data, data))
    assert torch.isfinite(tuned(x)).all()


def _generator() -> Iterator[tuple[Tensor, Tensor]]:
    yield torch.randn(4, 3, 32, 32), torch.zeros(4, dtype=torch.long)


@pytest.mark.parametrize(
    ("changes", "options", "text"),
    [
        ({"train": _generator()}, {}, "the training data is a generator"),
        ({"validation": _generator()}, {}, "the validation data is a generator"),
        ({"train": []}, {}, "the training data is empty"),
        ({"loss": lambda *_: torch.tensor(math.nan, requires_grad=True)}, {}, "loss became nan"),
        ({"model": nn.Sequential(nn.Flatten(), nn.Linear(3072, 7))}, {}, r"\(4, 10\).*\(4, 7\)"),
        ({"validation": None}, {"lr": 1e30, "distill": 0.0}, "lower lr"),
    ],
)
def test_what_cannot_be_trained_is_said(
    changes: dict[str, Any], options: dict[str, Any], text: str
) -> None:
    task, network = _task()
    with pytest.raises(InputError, match=text):
        train(network, _changed(task, **changes), dataclasses.replace(QUICK, **options))


def test_scores_of_a_single_class_cannot_be_distilled_but_trained() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(3, 1), torch.randn(8, 3)
    data = [(x, torch.zeros(8, dtype=torch.int64))]

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.mse_loss(outputs[:, 0], targets.float())

    task = Task(model, x[:2], data, data, loss=loss)
    network = capture(model, x[:2])
    with pytest.raises(InputError, match=r"\(8, 1\) can't be distilled.*set distill=0"):
        train(network, task, QUICK)
    train(network, task, dataclasses.replace(QUICK, distill=0.0))


def _of_two_outputs(**more: Any) -> tuple[Task, Network]:
    """A network that gives boxes of hundreds and scores below 1, with noise for targets, and a copy
    of it whose weights are a little off."""

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(6, 16), nn.Linear(16, 5)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            y = self.head(self.body(x).relu())
            return {"boxes": 300 * y[:, :4], "scores": y[:, 4:].sigmoid()}

    torch.manual_seed(0)
    model, x = Heads().eval(), torch.randn(128, 6)
    data = Arrays(x, [{"noise": torch.randn(2)} for _ in x], batch_size=32)

    def loss(outputs: dict[str, Tensor], targets: Any) -> Tensor:
        noise = torch.stack([sample["noise"].mean() for sample in targets])
        return (outputs["scores"][:, 0] + noise).mean()

    network = capture(model, x[:2])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return Task(model, x[:2], data, data, loss=loss, **more), network


def _apart(task: Task, network: Network) -> list[float]:
    (x, _), *_ = task.train
    with torch.no_grad():
        mine, theirs = network(x), task.model(x)
    return [float((mine[key] - theirs[key]).abs().mean() / theirs[key].std()) for key in theirs]


def test_any_outputs_are_distilled_each_in_units_of_its_spread() -> None:
    task, network = _of_two_outputs()
    options = TuneOptions(30, "adamw", 0.01, distill=1.0, precision="float32")
    tuned = train(network, task, options).network
    before, after = _apart(task, network), _apart(task, tuned)
    assert all(b < 0.7 * a for a, b in zip(before, after, strict=True))


def test_the_tasks_own_distance_is_what_counts() -> None:
    seen = []

    def distill(outputs: dict[str, Tensor], taught: dict[str, Tensor]) -> Tensor:
        seen.append(set(outputs))
        return (outputs["scores"] - taught["scores"]).square().mean()

    task, network = _of_two_outputs(distill=distill)
    options = TuneOptions(epochs=12, distill=1.0, lr=2.0, precision="float32")
    tuned = train(network, task, options).network
    assert seen[0] == {"boxes", "scores"}
    assert _apart(task, tuned)[1] < 0.7 * _apart(task, network)[1]


@pytest.mark.parametrize(
    ("own", "text"),
    [
        (lambda outputs, taught: outputs["scores"] - taught["scores"], "distill returned shape"),
        (lambda outputs, taught: 0.5, "distill returned 0.5; it must return one number"),
        (lambda outputs, taught: outputs["maps"], "distill raised KeyError"),
    ],
)
def test_a_distance_that_is_none_is_refused(own: Any, text: str) -> None:
    task, network = _of_two_outputs(distill=own)
    with pytest.raises(InputError, match=text):
        train(network, task, QUICK)
    with pytest.raises(InputError, match="the task's distill is a float; wanted a function"):
        dataclasses.replace(task, distill=0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"epochs": math.inf}, "epochs must be a positive number; found inf"),
        ({"lr": 0}, "lr must be a positive number; found 0"),
        ({"temperature": -1}, "temperature must be a positive number"),
        ({"weight_decay": -1e-4}, "weight_decay must be 0 or more"),
        ({"distill": 1.5}, r"distill must be in \[0, 1\]; found 1.5"),
        ({"patience": 0}, "patience must be 1 epoch or more"),
        ({"optimizer": "adam"}, "optimizer must be one of sgd, adamw; found 'adam'"),
        ({"device": "gpu"}, "device must be one of auto, cpu, cuda; found 'gpu'"),
        ({"precision": "fp8"}, "precision must be one of auto, float32, bfloat16; found 'fp8'"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        TuneOptions(**options)
