"""Gptq: weights are whole steps of their scale, and outputs nearer than by rounding to nearest."""

from __future__ import annotations

import pytest
import torch

from penjing.arith.quantizer import quantized, weight_ends, weight_scales
from penjing.arith.rounding import rounded_in_turn
from penjing.errors import InputError
from penjing.network import capture
from penjing.network.graph.qparams import weight_qparams
from penjing.passes import Gptq, Quantize
from tests.rounding import error, task_of


@pytest.mark.parametrize("name", ["plain_cnn", "resnet_a", "mobilenet_v2", "vit_by_hand"])
@pytest.mark.parametrize("activations", [None, 8])
def test_outputs_come_nearer(name: str, activations: int | None) -> None:
    task = task_of(name)
    network = capture(task.model, task.example)
    nearest = Quantize(weights=3, activations=activations, samples=64)(network, task)
    assert error(Gptq(64)(nearest, task), network, task) < error(nearest, network, task)


@pytest.mark.parametrize("group", [None, 16])
def test_weights_stay_whole_steps_of_their_scale(group: int | None) -> None:
    task = task_of("vit_by_hand")
    few = Quantize(weights=4, activations=None, group=group, samples=64)(
        capture(task.model, task.example), task
    )
    found = Gptq(64)(few, task)
    for qparams in weight_qparams(found).values():
        weight, scale = found.tensor(qparams.source_name), found.tensor(qparams.scale)
        steps = (weight.reshape(*scale.shape, -1) / scale.unsqueeze(-1)).detach()
        torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3)
        assert qparams.low <= steps.round().min()
        assert steps.round().max() <= qparams.high
        assert torch.equal(scale, few.tensor(qparams.scale))


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_inputs_that_share_nothing_round_to_nearest(bits: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(5, 12)
    scales, (low, high) = weight_scales(weight, bits), weight_ends(bits)
    apart = torch.diag(torch.rand(12) + 0.1)
    found = rounded_in_turn(weight, apart, scales, (low, high))
    nearest = quantized(weight, scales, low, high) * scales[:, None]
    torch.testing.assert_close(found, nearest)


@pytest.mark.parametrize("seed", range(5))
def test_the_error_of_correlated_inputs_shrinks(seed: int) -> None:
    torch.manual_seed(seed)
    weight, x = torch.randn(8, 20), torch.randn(400, 4) @ torch.randn(4, 20)
    x = x + 0.1 * torch.randn(400, 20)
    scales, (low, high) = weight_scales(weight, 3), weight_ends(3)
    nearest = quantized(weight, scales, low, high) * scales[:, None]
    found = rounded_in_turn(weight, x.T @ x / 400, scales, (low, high))
    assert (x @ (found - weight).T).square().sum() < (x @ (nearest - weight).T).square().sum()


def test_a_network_that_is_not_rounded_is_left_alone() -> None:
    task = task_of("plain_cnn")
    plan = Gptq().plan(capture(task.model, task.example), task)
    assert not plan.summary
    assert "Quantize first" in plan.left_alone[0].why


@pytest.mark.parametrize("options", [{"samples": 1}, {"damping": 0.0}])
def test_options_out_of_range_are_named(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        Gptq(**options)  # type: ignore[arg-type]
