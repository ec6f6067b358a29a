"""Which orders of a recipe can't work, from what passes require and provide alone."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from penjing.errors import InputError
from penjing.network import Network, capture
from penjing.passes import (
    PASSES,
    Binarize,
    Compensate,
    CorrectBias,
    Equalize,
    Factorize,
    Gptq,
    Merge,
    MixedPrecision,
    Pass,
    PruneChannels,
    Quantize,
    Reconstruct,
    Ternarize,
    Tune,
)
from penjing.passes.conditions import OF_NETWORK, OF_TASK, Condition, require_of_task
from penjing.passes.order import ENDS, SPOILS, problems, require_legal
from penjing.search.strategies.schemes import FEWER_BITS, SCHEMES
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task
from penjing.tune.options import TuneOptions
from tests.reference_networks import build

CUT, SOLVE, TRAIN, ROUND = PruneChannels(0.4), Compensate(8), Tune(), Quantize(samples=8)
FLOAT_VALUES = Ternarize(ends=None)

LEGAL: list[tuple[Pass, ...]] = [
    (CUT, SOLVE, TRAIN, ROUND, Gptq()),
    (CUT, SOLVE, TRAIN, CUT, SOLVE, TRAIN),
    (Merge(0.4), SOLVE),
    (Factorize(), SOLVE, CUT, TRAIN, ROUND),
    (Equalize(), ROUND, CorrectBias()),
    (MixedPrecision(uniform=4), Reconstruct(), TRAIN),
    (ROUND, TRAIN, CUT, TRAIN),
    (ROUND, Gptq(), CorrectBias()),
    (ROUND, Gptq(), TRAIN, Gptq()),
    (Binarize(weights=False), TRAIN, Binarize(), TRAIN),
    (Ternarize(), TRAIN, Ternarize(activations=8), TRAIN),
    (FLOAT_VALUES, ROUND),
    *SCHEMES.values(),
    *FEWER_BITS.values(),
]
WRONG: list[tuple[tuple[Pass, ...], str]] = [
    ((SOLVE,), "pass 1 (Compensate) has nothing to do: nothing has been removed yet"),
    ((TRAIN, SOLVE, CUT), "pass 2 (Compensate) has nothing to do: nothing has been removed yet"),
    (
        (CUT, TRAIN, SOLVE),
        "pass 3 (Compensate) comes after pass 2 (Tune) and would undo that training",
    ),
    (
        (CUT, ROUND, SOLVE),
        "pass 3 (Compensate) has nothing to do after pass 2 (Quantize): the weights or "
        "activations are quantized already",
    ),
    (
        (Gptq(), ROUND),
        "pass 1 (Gptq) has nothing to do: no weight is quantized; apply Quantize first",
    ),
    ((CorrectBias(),), "pass 1 (CorrectBias) has nothing to do: no weight is quantized"),
    ((Reconstruct(),), "pass 1 (Reconstruct) has nothing to do: no weight is quantized"),
    ((ROUND, ROUND), "pass 2 (Quantize) has nothing to do after pass 1 (Quantize)"),
    ((ROUND, MixedPrecision(uniform=4)), "pass 2 (MixedPrecision) has nothing to do after"),
    ((ROUND, Equalize()), "pass 2 (Equalize) has nothing to do after pass 1 (Quantize)"),
    ((ROUND, Factorize()), "pass 2 (Factorize) has nothing to do after pass 1 (Quantize)"),
    ((ROUND, Merge(0.4)), "pass 2 (Merge) has nothing to do after pass 1 (Quantize)"),
    ((Ternarize(ends=None, activations=8), ROUND), "pass 2 (Quantize) has nothing to do after"),
    ((FLOAT_VALUES, Gptq()), "pass 2 (Gptq) has nothing to do: no weight is quantized"),
    ((ROUND, Reconstruct(), CorrectBias()), "pass 3 (CorrectBias) comes after pass 2 (Reconst"),
    ((ROUND, CorrectBias(), Reconstruct()), "corrects the mean error itself"),
    ((ROUND, CorrectBias(), Gptq()), "corrects the mean error itself"),
    ((ROUND, Gptq(), Reconstruct()), "has nothing left to round"),
]


def _task(**changes: Any) -> tuple[Task, Network]:
    model, x = build("plain_cnn")
    data = Arrays(x.repeat(4, 1, 1, 1), torch.arange(16) % 10, batch_size=8)
    task = Task(model, x[:2], data, data, data)
    return dataclasses.replace(task, **changes), capture(model, x[:2])


@pytest.mark.parametrize("recipe", LEGAL)
def test_orders_that_work_have_no_problem(recipe: tuple[Pass, ...]) -> None:
    assert problems(recipe) == []
    require_legal(recipe)


@pytest.mark.parametrize(("recipe", "words"), WRONG)
def test_each_problem_is_a_line_that_names_the_pass(recipe: tuple[Pass, ...], words: str) -> None:
    (line,) = problems(recipe)
    assert words in line
    assert "\n" not in line
    with pytest.raises(InputError, match="the recipe's order can't work: .*" + re.escape(words)):
        require_legal(recipe)


def test_several_problems_are_counted() -> None:
    assert len(problems((SOLVE, Gptq(), ROUND))) == 2
    with pytest.raises(InputError, match=r"Compensate.* \(and 1 more\)"):
        require_legal((SOLVE, Gptq(), ROUND))


@pytest.mark.parametrize("recipe", [one for one, words in WRONG if "nothing to do" in words])
def test_what_has_nothing_to_do_by_its_place_has_an_empty_plan_there(
    recipe: tuple[Pass, ...],
) -> None:
    """The order is told from the same data that `plan` goes by."""
    (line,) = problems(recipe)
    place = int(line.removeprefix("pass ").split()[0]) - 1
    task, network = _task()
    for step in recipe[:place]:
        short = Tune(TuneOptions(epochs=1, device="cpu"), recalibration_samples=0)
        network = (short if isinstance(step, Tune) else step)(network, task)
    plan = recipe[place].plan(network, task)
    assert (plan.edits, plan.parts) == ((), ())
    assert plan.left_alone[0].what == "the network"
    assert line.endswith(plan.left_alone[0].why)


@pytest.mark.parametrize("recipe", [one for one in LEGAL if TRAIN not in one])
def test_what_may_stand_where_it_stands_has_something_to_do(recipe: tuple[Pass, ...]) -> None:
    task, network = _task()
    for step in recipe:
        small = {"samples": 8} if hasattr(step, "samples") else {}
        quick = {"steps": 2, "batch": 4} if isinstance(step, Reconstruct) else {}
        step = dataclasses.replace(step, **small, **quick)  # type: ignore[type-var]
        plan = step.plan(network, task)
        assert plan.edits or plan.parts, plan
        network = step.apply(network, plan, task)


def test_every_condition_has_a_say() -> None:
    """Of those that nothing asks for, none is kept."""
    spoiled = {one for pair in SPOILS for one in pair}
    assert set(Condition) == {*OF_TASK, *OF_NETWORK, *spoiled, *ENDS}
    assert set(OF_TASK).isdisjoint(OF_NETWORK)


def test_what_a_pass_requires_and_provides_is_data() -> None:
    for kind in PASSES.values():
        step = kind(uniform=4) if kind is MixedPrecision else kind()
        assert isinstance(step.requires, frozenset)
        assert isinstance(step.provides, frozenset)
        assert step.requires | step.provides <= set(Condition)
        assert step.provides.isdisjoint(OF_TASK)


def _raising(outputs: Tensor, targets: Tensor) -> Tensor:
    raise ValueError("no such class")


TRAINED_ON = [Tune(), PruneChannels(importance="taylor")]
LOSSES = [
    (_raising, "needs the task's loss, which raised ValueError: no such class"),
    (lambda y, t: 0.5, "needs a loss with gradients; the task's loss returned 0.5 for the first"),
    (lambda y, t: y.detach().mean(), "return one number that torch computes from the outputs"),
    (lambda y, t: y, r"returned a tensor of shape \(\d+, 10\) for the first training batch"),
]


@pytest.mark.parametrize("step", TRAINED_ON)
@pytest.mark.parametrize(("loss", "words"), LOSSES)
def test_a_loss_without_gradients_is_refused_before_any_work(
    step: Pass, loss: Any, words: str
) -> None:
    task, network = _task(loss=loss)
    with pytest.raises(InputError, match=f"{type(step).__name__} {words}|{words}"):
        step.plan(network, task)
    with pytest.raises(InputError, match=words):
        step(network, task)


def test_what_needs_no_loss_asks_for_none() -> None:
    task, network = _task(loss=_raising)
    PruneChannels(0.4).plan(network, task)
    Tune(TuneOptions(distill=1.0)).plan(network, task)


@pytest.mark.parametrize("step", [ROUND, SOLVE, MixedPrecision(uniform=4), *TRAINED_ON])
def test_data_that_cannot_be_used_is_refused_before_any_work(step: Pass) -> None:
    _, network = _task()
    network = CUT(network, _task()[0])
    x = np.zeros((4, 3, 16, 16), np.float32)
    for train, words in [
        ([], "has 0 sample"),
        (iter([(torch.zeros(2, 3, 32, 32), torch.zeros(2).long())]), "is a generator"),
        (Arrays(x, np.zeros(4, np.int64)), r"have shape \(3, 16, 16\), but the example has"),
    ]:
        with pytest.raises(InputError, match=words):
            step.plan(network, _task(train=train)[0])


def test_whatever_is_required_of_a_task_says_that_there_is_no_data() -> None:
    task, network = _task(train=[])
    for condition in OF_TASK:
        with pytest.raises(InputError, match=r"needs training data, but there is|has 0 sample"):
            require_of_task("Tune", frozenset({condition}), network, task)


def test_what_rounds_no_values_needs_no_data() -> None:
    task, network = _task(train=[])
    assert Quantize(activations=None).plan(network, task).edits
    assert Ternarize().plan(network, task).edits


def test_looking_at_the_task_leaves_the_random_state() -> None:
    task, network = _task()
    assert isinstance(task.train, Arrays)
    held = TensorDataset(task.train.x, task.train.y)
    loader = DataLoader(held, 4, shuffle=True)
    before = torch.get_rng_state()
    Tune().plan(network, dataclasses.replace(task, train=loader))
    assert torch.equal(torch.get_rng_state(), before)
