"""Reconstruct: weights move by less than a step, and outputs come nearer to what they were."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from penjing.errors import InputError
from penjing.network import Network, capture
from penjing.network.analysis.segments import between, bottlenecks
from penjing.network.graph.qparams import weight_qparams
from penjing.passes import Quantize, Reconstruct
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task
from penjing.tune.options import TuneOptions
from penjing.tune.train import train
from tests.rounding import error, task_of

QUICK: dict[str, Any] = {"steps": 40, "samples": 32, "batch": 8}


@pytest.mark.parametrize("parts", ["blocks", "layers"])
@pytest.mark.parametrize("name", ["plain_cnn", "resnet_a", "mobilenet_v2"])
def test_outputs_come_nearer(name: str, parts: str) -> None:
    task = task_of(name)
    network = capture(task.model, task.example)
    nearest = Quantize(weights=3, activations=None, samples=64)(network, task)
    learned = Reconstruct(parts=parts, **QUICK)(nearest, task)  # type: ignore[arg-type]
    assert error(learned, network, task) < error(nearest, network, task)


@pytest.mark.parametrize("bits", [2, 4])
def test_a_weight_goes_to_one_of_its_two_neighbours(bits: int) -> None:
    task = task_of("plain_cnn")
    nearest = Quantize(weights=bits, activations=4, samples=64)(
        capture(task.model, task.example), task
    )
    learned = Reconstruct(**QUICK)(nearest, task)
    for layer, qparams in weight_qparams(learned).items():
        name, scale = qparams.source_name, learned.tensor(qparams.scale)
        before, after = (
            (one.tensor(name).flatten(1) / scale[:, None]).detach() for one in (nearest, learned)
        )
        torch.testing.assert_close(after, after.round(), rtol=0, atol=1e-3)
        inside = (before > qparams.low) & (before < qparams.high)
        assert float((after - before)[inside].abs().max()) <= 1 + 1e-3, layer
        assert int(after.round().min()) >= qparams.low
        assert int(after.round().max()) <= qparams.high


def test_same_seed_same_bits() -> None:
    task = task_of("plain_cnn")
    nearest = Quantize(weights=3, samples=64)(capture(task.model, task.example), task)
    one, other, third = (Reconstruct(**QUICK, seed=seed)(nearest, task) for seed in (0, 0, 1))
    assert all(torch.equal(a, other.state_dict()[key]) for key, a in one.state_dict().items())
    assert not all(torch.equal(a, third.state_dict()[key]) for key, a in one.state_dict().items())


def test_every_layer_of_a_residual_network_is_in_a_block() -> None:
    task = task_of("resnet_a")
    nearest = Quantize(weights=4, samples=16)(capture(task.model, task.example), task)
    plan = Reconstruct().plan(nearest, task)
    assert plan.left_alone == ()
    layers = len(weight_qparams(nearest))
    assert f"rounding of {layers} layers in {(layers - 2) // 2 + 2} blocks" in plan.summary


def test_a_network_that_is_not_rounded_is_left_alone() -> None:
    task = task_of("plain_cnn")
    plan = Reconstruct().plan(capture(task.model, task.example), task)
    assert plan.summary == ""
    assert "Quantize first" in plan.left_alone[0].why


@pytest.mark.parametrize(
    "options", [{"parts": "all"}, {"samples": 1}, {"steps": 0}, {"drop": 1.0}, {"pull": -1.0}]
)
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        Reconstruct(**options)  # type: ignore[arg-type]


def test_a_shortcut_is_no_bottleneck() -> None:
    class Shortcut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.last = (nn.Linear(4, 4) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(x + self.two(self.one(x)))

    network = capture(Shortcut(), torch.randn(2, 4))
    assert [node.name for node in bottlenecks(network)] == ["x", "add", "linear_2"]
    nodes = {node.name: node for node in network.graph.nodes}
    whole = between(nodes["x"], nodes["add"])
    assert whole is not None
    x = torch.randn(3, 4)
    want = x + _linear(network, "two", _linear(network, "one", x))
    torch.testing.assert_close(whole.run(network, x, {}), want)
    assert between(nodes["linear"], nodes["add"]) is None


def _linear(network: Network, name: str, x: torch.Tensor) -> torch.Tensor:
    return x @ network.tensor(f"{name}.weight").T + network.tensor(f"{name}.bias")


def test_tuning_a_quantized_network_learns_its_scales() -> None:
    torch.manual_seed(0)
    x = torch.randn(256, 8)
    y = (x[:, :4].sum(1) > 0).long()
    data = Arrays(x.numpy(), y.numpy(), batch_size=32)
    task = Task(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)), x[:2], data, data)
    rounded = Quantize(2, 2, ends=2, samples=64)(capture(task.model, task.example), task)
    options = TuneOptions(epochs=4, distill=0.0, precision="bfloat16")
    tuned = train(rounded, task, options).network
    scales = [key for key in rounded.state_dict() if key.endswith("_scale")]
    assert len(scales) >= 4
    assert all(not torch.equal(rounded.tensor(one), tuned.tensor(one)) for one in scales)
