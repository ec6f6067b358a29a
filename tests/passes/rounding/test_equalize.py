"""Equalize: the same function, weights of one range, and named what can't be scaled."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from penjing.contract import Plan
from penjing.errors import InputError
from penjing.network import Network, capture, carry_out
from penjing.network.edits.scaling import Reach, by_channel, reaches
from penjing.passes import Equalize, Quantize
from penjing.tasks.task import Task
from tests.reference_networks import NETWORKS, build


def task_of(model: nn.Module, x: Tensor) -> Task:
    batches = [(x, torch.zeros(len(x), dtype=torch.long))]
    return Task(model.eval(), x[:2], batches, batches)


def without_bounds(network: Network) -> Network:
    """The network with every ReLU6 a ReLU."""
    nodes = [node.name for node in network.calls() if "hardtanh" in str(node.target)]
    return carry_out(network, Plan("", {}, ({"edit": "lift_bounds", "nodes": nodes},)))


def ranges(network: Network, reach: Reach) -> tuple[Tensor, Tensor]:
    """max |w| of each channel where it is written, and where it is read."""

    def weight(node: torch.fx.Node) -> Tensor:
        return network.tensor(str(node.args[1].target)).detach().abs()  # type: ignore[union-attr]

    written = weight(reach.layer)
    read = [by_channel(node, weight(node), len(written)) for node, _ in reach.readers]
    return written.flatten(1).amax(1), torch.stack(
        [one.amax((1, 3)).flatten() for one in read]
    ).amax(0)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_function_stays(name: str) -> None:
    model, x = build(name)
    network = without_bounds(capture(model, x[:2]))
    equal = Equalize()(network, task_of(model, x))
    with torch.no_grad():
        torch.testing.assert_close(equal(x), network(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["plain_cnn", "vgg", "resnet_a", "mobilenet_v1", "mobilenet_v2"])
def test_ranges_become_equal(name: str) -> None:
    model, x = build(name)
    network = capture(model, x[:2])
    equal = Equalize()(network, task_of(model, x))
    found = [one for one in reaches(equal).values() if isinstance(one, Reach)]
    assert len(found) >= 2
    for reach in found:
        torch.testing.assert_close(*ranges(equal, reach), rtol=2e-3, atol=0)


def test_depthwise_layers_take_part_on_both_sides() -> None:
    model, x = build("mobilenet_v1")
    plan = Equalize().plan(capture(model, x[:2]), task_of(model, x))
    assert plan.summary == "scales the channels of 9 layers and replaces 9 ReLU6 by ReLU"
    assert [one.what for one in plan.left_alone] == ["head"]


def test_scale_worked_by_hand() -> None:
    """r1 = 8, r2 = 2: s = 2, and both become 4."""
    first, last = nn.Linear(1, 1), nn.Linear(1, 1)
    model = nn.Sequential(first, nn.ReLU(), last)
    with torch.no_grad():
        first.weight.fill_(-8.0), first.bias.fill_(6.0), last.weight.fill_(2.0)
    x = torch.randn(4, 1)
    equal = Equalize()(capture(model, x), task_of(model, x))
    assert equal.tensor("0.weight").item() == pytest.approx(-4.0)
    assert equal.tensor("0.bias").item() == pytest.approx(3.0)
    assert equal.tensor("2.weight").item() == pytest.approx(4.0)


class Mixed(nn.Module):
    """Slopes, a grouped convolution, two readers, a flatten, dead channels."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.slope = nn.Conv2d(3, 8, 3, padding=1), nn.PReLU(8)
        self.two = nn.Conv2d(8, 12, 3, groups=4)
        self.three, self.four = nn.Conv2d(12, 6, 1), nn.Conv2d(12, 6, 1)
        self.five = nn.Linear(6 * 9, 7)
        self.six = nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.leaky_relu(self.two(self.slope(self.one(x))), 0.1)
        y = torch.relu(self.three(x)) + torch.relu(self.four(x))
        y = nn.functional.max_pool2d(torch.relu(y), 2)
        return self.six(nn.functional.dropout(self.five(y.flatten(1)), 0.5, self.training))


def test_slopes_groups_and_several_readers() -> None:
    torch.manual_seed(0)
    model, x = Mixed(), torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        model.one.weight[3] = 0
        model.two.weight[5] = 0
        nn.init.uniform_(model.slope.weight, 0.1, 0.9)
    network = capture(model.eval(), x[:2])
    pass_, task = Equalize(), task_of(model, x)
    equal, plan = pass_(network, task), pass_.plan(network, task)
    torch.testing.assert_close(equal(x), network(x), rtol=1e-4, atol=1e-5)
    assert set(plan.edits[-1]["scales"]) == {"conv2d", "conv2d_1", "linear"}
    why = {one.what: one.why for one in plan.left_alone}
    assert why["three"] == "add.Tensor stands between it and the layers that read it"
    assert why["six"] == "its result is an output of the network"


def test_keep_leaves_relu6_alone() -> None:
    model, x = build("mobilenet_v2")
    network = capture(model, x[:2])
    plan = Equalize(relu6="keep").plan(network, task_of(model, x))
    assert "relu6='replace' removes the limit" in plan.left_alone[0].why
    torch.testing.assert_close(carry_out(network, plan)(x), network(x), rtol=1e-4, atol=1e-4)


def test_a_bound_other_than_six_is_kept() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Hardtanh(0.0, 1.0), nn.Linear(8, 2))
    x = torch.randn(4, 4)
    plan = Equalize().plan(capture(model, x), task_of(model, x))
    assert plan.edits == ()
    assert (
        plan.left_alone[0].why == "hardtanh.default stands between it and the layers that read it"
    )


def test_twice_is_once_and_the_plan_survives_json() -> None:
    model, x = build("mobilenet_v2")
    network, task = capture(model, x[:2]), task_of(model, x)
    plan = Equalize().plan(network, task)
    again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    equal = carry_out(network, plan)
    assert torch.equal(equal(x), carry_out(network, again)(x))
    assert Equalize().plan(equal, task).edits == ()


def test_quantized_layers_are_left_alone() -> None:
    model, x = build("plain_cnn")
    task = task_of(model, x)
    plan = Equalize().plan(Quantize(samples=4)(capture(model, x[:2]), task), task)
    assert plan.edits == ()
    assert {one.why for one in plan.left_alone} == {
        "the weights or activations are quantized already"
    }


def test_per_tensor_scales_lose_less() -> None:
    """Channels whose ranges differ a hundredfold, made so without a change of the function."""
    model, x = build("mobilenet_v2")
    network, task = without_bounds(capture(model, x[:2])), task_of(model, x)
    even = Equalize()(network, task)
    draw = torch.Generator().manual_seed(0)
    scales = {
        reach.layer.name: (
            10 ** (2 * torch.rand(len(ranges(even, reach)[0]), generator=draw) - 1)
        ).tolist()
        for reach in reaches(even).values()
        if isinstance(reach, Reach)
    }
    uneven = carry_out(even, Plan("", {}, ({"edit": "scale_channels", "scales": scales},)))
    naive = Quantize(scales="tensor", activations=None, samples=4)

    def error(one: Network) -> float:
        return (naive(one, task)(x) - network(x)).square().mean().item()

    assert error(Equalize()(uneven, task)) < error(uneven) / 20


def test_other_words_are_refused() -> None:
    with pytest.raises(InputError, match=r"relu6 must be 'replace' or 'keep'; found 'cut'"):
        Equalize(relu6="cut")  # type: ignore[arg-type]
