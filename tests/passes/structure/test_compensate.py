"""Compensation: what was lost twice over comes back whole, and what can't be solved is said."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from penjing.arith.least_squares import NormalEquations
from penjing.contract import Plan
from penjing.errors import InputError
from penjing.network import Network, capture, carry_out, find_axes
from penjing.passes import Compensate, PruneChannels
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task
from tests.reference_networks import NETWORKS, build


def _task(model: nn.Module, x: torch.Tensor, samples: int = 64) -> Task:
    draw = torch.Generator().manual_seed(1)
    images = torch.randn(samples, *x.shape[1:], generator=draw)
    data = Arrays(images, torch.arange(samples) % 10, batch_size=32)
    return Task(model, x[:2], data, data, data)


def _distance(one: Network, other: Network, task: Task) -> float:
    with torch.no_grad():
        pairs = [(one(x), other(x)) for x, _ in task.test]
    return float(torch.cat([(a - b).flatten() for a, b in pairs]).square().mean().sqrt())


@pytest.mark.parametrize("name", NETWORKS)
def test_compensation_brings_a_cut_network_nearer_to_the_original(name: str) -> None:
    model, x = build(name)
    task, network = _task(model, x), capture(model, x[:2])
    cut = PruneChannels(0.4, skip_mixed=True)(network, task)
    solved = Compensate(samples=64)(cut, task)
    assert _distance(solved, network, task) < 0.8 * _distance(cut, network, task)
    assert [p.shape for p in solved.parameters()] == [p.shape for p in cut.parameters()]


@pytest.mark.parametrize("name", ["plain_cnn", "resnet_a", "resnet_b"])
def test_channels_that_were_there_twice_are_not_missed(name: str) -> None:
    model, x = build(name)
    network = capture(model, x[:2])
    axes = find_axes(network)
    axis = [one for one in axes.free if one.endswith("conv1")][-1]  # of a block, where there is one
    half = axes[axis].size // 2
    with torch.no_grad():
        for site in axes[axis].sites:
            if site.dim == 0:
                tensor = dict(model.state_dict())[site.tensor]
                tensor[half:] = tensor[:half]
    network = capture(model, x[:2])
    task = _task(model, x)
    plan = Plan("cut", {}, ({"edit": "shrink", "axes": {axis: list(range(half))}},))
    cut = carry_out(network, plan)
    solved = Compensate(samples=64, ridge=1e-9)(cut, task)
    before, after = _distance(cut, network, task), _distance(solved, network, task)
    assert after < 1e-3 * before


def test_nothing_cut_is_an_empty_plan() -> None:
    model, x = build("plain_cnn")
    task, network = _task(model, x), capture(model, x[:2])
    plan = Compensate().plan(network, task)
    assert str(plan.left_alone[0].why) == "nothing has been removed yet"
    same = Compensate()(network, task)
    assert torch.equal(same(x), network(x))


def test_normal_equations_give_what_a_direct_solution_gives() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(200, 7, generator=draw, dtype=torch.float64) + 3
    y = torch.randn(200, 4, generator=draw, dtype=torch.float64)
    system = NormalEquations(7, 4)
    for start in range(0, 200, 30):
        system.add(x[start : start + 30], y[start : start + 30])
    weight, bias = system.solve(0.0)
    direct = torch.linalg.lstsq(torch.cat([x, torch.ones(200, 1)], 1), y).solution
    torch.testing.assert_close(weight, direct[:-1].T)
    torch.testing.assert_close(bias, direct[-1])
    without, nothing = system.solve(0.0, intercept=False)
    torch.testing.assert_close(without, torch.linalg.lstsq(x, y).solution.T)
    assert not nothing.any()


def test_a_singular_system_wants_a_ridge() -> None:
    system = NormalEquations(3, 1)
    system.add(torch.ones(5, 3), torch.ones(5, 1))
    with pytest.raises(InputError, match=r"linearly dependent \(5 rows for 3 unknowns\).*ridge"):
        system.solve(0.0)


def test_inputs_that_do_not_vary_get_no_weight() -> None:
    system = NormalEquations(3, 1)
    system.add(torch.full((5, 3), 0.1), torch.arange(5.0)[:, None])
    weight, bias = system.solve(1e-4)
    assert not weight.any()
    assert bias.tolist() == [2.0]


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("dimensions", [1, 2])
def test_every_group_of_a_convolution_is_solved(dimensions: int, groups: int, norm: bool) -> None:
    conv = (nn.Conv1d, nn.Conv2d)[dimensions - 1]
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)[dimensions - 1]
    torch.manual_seed(0)
    model = nn.Sequential(
        conv(3, 16, 3, stride=2, padding=1), nn.ReLU(),
        conv(16, 24, 3, padding=2, dilation=2, groups=groups), norms(24) if norm else nn.ReLU(),
        nn.Flatten(2), nn.Linear(16 if dimensions == 1 else 256, 1), nn.Flatten(),
    ).eval()  # fmt: skip
    with torch.no_grad():  # the second half of the channels that each group reads is the first
        for tensor in (model.get_parameter("0.weight"), model.get_parameter("0.bias")):
            by_group = tensor.view(groups, 16 // groups, *tensor.shape[1:])
            half = 8 // groups
            by_group[:, half:] = by_group[:, :half]
    x = torch.randn(2, 3, *[32] * dimensions)
    task, network = _task(model, x), capture(model, x)
    axis = "0" if groups == 1 else "0[1]"
    cut = carry_out(
        network, Plan("cut", {}, ({"edit": "shrink", "axes": {axis: list(range(half))}},))
    )
    compensate = Compensate(samples=64, ridge=1e-9)
    assert compensate.plan(cut, task).left_alone == ()
    before = _distance(cut, network, task)
    assert _distance(compensate(cut, task), network, task) < 1e-3 * before


def test_fewer_samples_are_taken_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = build("plain_cnn")
    task, network = _task(model, x), capture(model, x[:2])
    cut = PruneChannels(0.4)(network, task)
    monkeypatch.setattr("penjing.measure.costs.MOST_BYTES", 2 * 2**20)
    plan = Compensate(samples=512).plan(cut, task)
    assert "samples (512 would not fit into memory)" in plan.summary


def test_bad_options_and_data_are_refused() -> None:
    with pytest.raises(InputError, match="samples and rows must be 2 or more; found 1 and 50000"):
        Compensate(samples=1)
    with pytest.raises(InputError, match="ridge must be positive; found 0"):
        Compensate(ridge=0)
    model, x = build("plain_cnn")
    task, network = _task(model, x), capture(model, x[:2])
    cut = PruneChannels(0.4)(network, task)
    small = [(torch.zeros(2, 3, 16, 16), torch.zeros(2, dtype=torch.long))]
    wrong = dataclasses.replace(task, train=small)
    with pytest.raises(InputError, match=r"calibration data.*\(3, 16, 16\).*\(3, 32, 32\)"):
        Compensate()(cut, wrong)
