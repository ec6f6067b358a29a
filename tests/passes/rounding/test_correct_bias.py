"""CorrectBias: the mean error goes, on the values that layers really get."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from penjing.contract import Plan
from penjing.errors import InputError
from penjing.network import Network, capture, restore, save
from penjing.network.analysis.activation_cache import ActivationCache
from penjing.network.edits.fake_quantize import unrounded
from penjing.network.graph.qparams import weight_qparams
from penjing.passes import CorrectBias, Equalize, Quantize
from penjing.tasks.task import Task


class Biased(nn.Module):
    """Weights that all round down by nearly half a step, on inputs that are never negative."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1, bias=bias)
        self.deep = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=bias)
        self.linear = nn.Linear(6, 4, bias=bias)
        with torch.no_grad():
            for layer in (self.conv, self.deep, self.linear):
                layer.weight.copy_(torch.randint(1, 4, layer.weight.shape) + 0.4)
                layer.weight.flatten(1)[:, 0] = 7.0
                layer.weight.div_(7 * layer.weight[0].numel())

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.deep(torch.relu(self.conv(x))))
        return self.linear(x.mean((2, 3)))


def quantized(bias: bool) -> tuple[Network, Task]:
    torch.manual_seed(0)
    batches = [(torch.rand(16, 3, 8, 8), torch.zeros(16, dtype=torch.long)) for _ in range(3)]
    task = Task(Biased(bias).eval(), batches[0][0][:2], batches, batches)
    quantize = Quantize(weights=4, ends=4, samples=48)
    return quantize(capture(task.model, task.example), task), task


def mean_errors(network: Network, before: Network, task: Task) -> dict[str, float]:
    """By layer, the largest mean error of a channel against `before` without its rounding,
    relative to the outputs' size."""
    batches = [x for x, _ in task.train]
    float_, rounded = ActivationCache(unrounded(before), batches), ActivationCache(network, batches)
    found = {}
    for node in weight_qparams(network):
        want, have = torch.cat(float_.value_of(node.name)), torch.cat(rounded.value(node))
        dims = [one for one in range(want.dim()) if one != 1]
        error = (want - have).mean(dims).abs().max() / want.abs().mean()
        found[str(node.meta["layer"])] = error.item()
    return found


@pytest.mark.parametrize("bias", [True, False])
def test_the_mean_error_of_every_channel_goes(bias: bool) -> None:
    network, task = quantized(bias)
    corrected = CorrectBias(samples=48)(network, task)
    before, after = (mean_errors(one, network, task) for one in (network, corrected))
    assert min(before.values()) > 0.01
    assert max(after.values()) < 1e-3


def test_layers_without_a_bias_get_one() -> None:
    network, task = quantized(bias=False)
    plan = CorrectBias().plan(network, task)
    assert plan.summary == "corrects the biases of 3 layers on 512 samples (3 of them new)"
    assert plan.edits[0]["layers"] == [node.name for node in weight_qparams(network)]
    assert CorrectBias().plan(CorrectBias()(network, task), task).edits == ()


def test_input_untouched_and_the_plan_survives_json() -> None:
    network, task = quantized(bias=True)
    before = {name: one.clone() for name, one in network.state_dict().items()}
    one = CorrectBias(samples=48)
    plan = one.plan(network, task)
    again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    x = task.train[0][0]  # type: ignore[index]
    assert torch.equal(one.apply(network, plan, task)(x), one.apply(network, again, task)(x))
    assert all(torch.equal(one, before[name]) for name, one in network.state_dict().items())


def test_several_passes_survive_the_disk(tmp_path: Path) -> None:
    _, task = quantized(bias=False)
    network = capture(task.model, task.example)
    for one in (Equalize(), Quantize(scales="tensor", samples=48), CorrectBias(samples=48)):
        network = one(network, task)
    save(network, tmp_path)
    again = restore(tmp_path, Biased(bias=False), task.example)
    x = task.train[0][0]  # type: ignore[index]
    assert torch.equal(again(x), network(x))


def test_what_is_not_rounded_is_named() -> None:
    _, task = quantized(bias=True)
    floating = capture(task.model, task.example)
    plan = CorrectBias().plan(floating, task)
    assert plan.left_alone[0].why == "no weight is quantized; apply Quantize first"
    assert not plan.edits
    some = Quantize(skip=("deep",), samples=48)(floating, task)
    left = CorrectBias().plan(some, task).left_alone
    assert [(one.what, one.why) for one in left] == [("deep", "its weight isn't quantized")]


def test_one_sample_is_refused() -> None:
    with pytest.raises(InputError, match="samples must be 2 or more to find a mean; found 1"):
        CorrectBias(samples=1)
