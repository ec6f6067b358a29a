"""Scales of integers are trained in shares of their sizes, whatever the optimizer."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from penjing.network import Network, capture
from penjing.passes import Quantize, Ternarize, Tune
from penjing.tasks.batches import number_of_batches
from penjing.tasks.task import Task
from penjing.trials.recipe import Recipe
from penjing.tune.optimizer import optimizer_for, set_rate
from penjing.tune.options import TuneOptions
from tests.reference_networks import self_taught


def _trained(task: Task, begin: Network, options: TuneOptions) -> Network:
    return Tune(options, recalibration_samples=0)(begin, replace(task, validation=None))


def _moved(before: Network, after: Network, ending: str) -> list[tuple[float, float]]:
    """By how much tensors changed, at most, and the mean of their sizes."""
    return [
        (float((new - old).detach().abs().max()), float(old.detach().abs().mean()))
        for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True)
        if name.endswith(ending)
    ]


@pytest.mark.parametrize("method", [Quantize(), Ternarize()], ids=["int8", "ternary"])
def test_adamw_moves_no_scale_by_more_than_its_share(method: Quantize | Ternarize) -> None:
    task = self_taught("plain_cnn")
    rounded = Recipe([method])(capture(task.model, task.example), task)
    options = TuneOptions(2, "adamw", 1e-2, weight_decay=0.0, distill=0.0, precision="float32")
    tuned = _trained(task, rounded, options)
    steps = 2 * number_of_batches(task.train)
    moved = _moved(rounded, tuned, "_scale")
    assert moved
    assert any(change > 0 for change, _ in moved)
    for change, size in moved:
        assert change <= 1.5 * options.lr * steps * size
    assert all(change > 0 for change, _ in _moved(rounded, tuned, "weight"))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_each_tensor_that_is_trained_is_in_one_group(optimizer: str) -> None:
    task = self_taught("plain_cnn")
    rounded = Recipe([Quantize()])(capture(task.model, task.example), task)
    made = optimizer_for(rounded, TuneOptions(optimizer=optimizer, weight_decay=0.1))
    inside = [id(tensor) for group in made.param_groups for tensor in group["params"]]
    assert sorted(inside) == sorted(id(p) for p in rounded.parameters() if p.requires_grad)
    for group in made.param_groups:
        decayed = {tensor.dim() > 1 for tensor in group["params"]}
        assert decayed <= {group["weight_decay"] > 0}


def test_a_rate_is_a_share_of_the_size_for_scales_alone() -> None:
    task = self_taught("plain_cnn")
    rounded = Recipe([Quantize()])(capture(task.model, task.example), task)
    made = optimizer_for(rounded, TuneOptions(optimizer="adamw"))
    set_rate(made, 0.5)
    sizes = {name: float(p.detach().abs().mean()) for name, p in rounded.named_parameters()}
    rates = {id(p): group["lr"] for group in made.param_groups for p in group["params"]}
    for name, parameter in rounded.named_parameters():
        if parameter.requires_grad:
            wanted = 0.5 * sizes[name] if name.endswith("_scale") else 0.5
            assert math.isclose(rates[id(parameter)], wanted, rel_tol=1e-6), name
