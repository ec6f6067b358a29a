"""Sparse weights: which go, that they stay zero, and that what goes by curvature costs less."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from penjing.arith.least_squares import solved_on_support, support_factors
from penjing.errors import InputError, UnsafeError
from penjing.network import Network, capture, carry_out
from penjing.network.analysis.held import held
from penjing.network.graph.layers import Layer, layers_of
from penjing.network.save import restore, save
from penjing.passes import (
    Compensate,
    CorrectBias,
    Equalize,
    Gptq,
    Pass,
    PruneChannels,
    Quantize,
    Reconstruct,
    Sparsify,
    Tune,
)
from penjing.passes.structure.sparse.patterns import Pattern
from penjing.passes.structure.sparse.surgeon import inverse_diagonals
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task
from penjing.trials.recipe import Recipe
from penjing.tune.options import TuneOptions
from tests.reference_networks import NETWORKS, build


def _task(name: str, samples: int = 32) -> tuple[Task, Network]:
    model, x = build(name)
    draw = torch.Generator().manual_seed(1)
    images = torch.randn(samples, *x.shape[1:], generator=draw)
    data = Arrays(images, torch.arange(samples) % 10, batch_size=16)
    return Task(model, x[:2], data, data), capture(model, x[:2])


def _zeros(network: Network) -> dict[str, torch.Tensor]:
    """By name of a held weight, where it is zero."""
    return {name: (network.tensor(name) == 0) for name in held(network)}


def _error(network: Network, task: Task) -> float:
    assert isinstance(task.test, Arrays)
    with torch.no_grad():
        return float((network(task.test.x) - task.model(task.test.x)).square().mean())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_sparsity_of_zero_changes_nothing(name: str) -> None:
    task, network = _task(name, 4)
    result = Sparsify(0.0)(network, task)
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, result.state_dict()[key])
    assert "a sparsity of 0 sets nothing to zero" in str(Sparsify(0.0).plan(network, task))


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("name", ["plain_cnn", "mobilenet_v2", "vit_fused"])
def test_the_norms_rank_single_weights_alike(name: str, scope: Any) -> None:
    task, network = _task(name, 4)
    one, *others = (
        Sparsify(0.6, criterion, scope)(network, task) for criterion in ("l1", "l2", "l1+l2")
    )
    for key, tensor in one.state_dict().items():
        assert all(torch.equal(tensor, other.state_dict()[key]) for other in others)
    assert held(one)


@pytest.mark.parametrize("criterion", ["l1", "taylor", "obs"])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_share_is_met_and_no_layer_is_emptied(criterion: Any, scope: Any) -> None:
    task, network = _task("mobilenet_v2")
    sparse = Sparsify(0.9, criterion, scope, ends=1, steps=2)(network, task)
    weights = [sparse.tensor(Layer(node).weight_name) for node in layers_of(sparse)]
    gone = [float((weight == 0).float().mean()) for weight in weights]
    every = sum(weight.numel() for weight in weights)
    total = sum(share * weight.numel() for share, weight in zip(gone, weights, strict=True))
    assert total / every == pytest.approx(0.9, abs=0.002)
    assert max(gone) <= 1 - 0.25 * 0.1 + 0.01
    if scope == "layer":
        assert min(gone) > 0.88


def test_the_ends_get_their_share() -> None:
    task, network = _task("plain_cnn")
    for ends, wanted in ((0.0, 0.0), (0.5, 0.4), (1.0, 0.8)):
        sparse = Sparsify(0.8, "l1", "layer", ends=ends)(network, task)
        gone = [
            float((sparse.tensor(Layer(node).weight_name) == 0).float().mean())
            for node in layers_of(sparse)
        ]
        assert [gone[0], gone[-1]] == pytest.approx([wanted, wanted], abs=0.01)
        assert gone[1] == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("criterion", ["l2", "obs"])
@pytest.mark.parametrize(("pattern", "most", "among"), [("2:4", 2, 4), ("1:4", 1, 4)])
def test_at_most_n_of_m_inputs_stay(criterion: Any, pattern: str, most: int, among: int) -> None:
    task, network = _task("plain_cnn")
    sparsify = Sparsify(criterion=criterion, pattern=pattern, ends=1, steps=2, skip=("fc1",))
    sparse = sparsify(network, task)
    left, _ = sparsify.plan(network, task).left_alone
    assert (left.what, left.why) == ("conv1", "its 3 inputs can't be divided by 4")
    for name in held(sparse):
        weight = sparse.tensor(name)
        groups = (weight != 0).reshape(len(weight), -1, among, weight[0, 0].numel())
        assert bool((groups.sum(2) == most).all())
    assert len(held(sparse)) == 2


def test_blocks_go_as_one() -> None:
    task, network = _task("plain_cnn")
    sparse = Sparsify(0.5, "l1", pattern="4x2", skip=("conv1", "fc2"))(network, task)
    for name in held(sparse):
        weight = (sparse.tensor(name) != 0).float()
        outputs, inputs = weight.shape[:2]
        blocks = weight.reshape(outputs // 4, 4, inputs // 2, 2, -1).mean((1, 3))
        assert set(torch.unique(blocks).tolist()) == {0.0, 1.0}
        assert float(blocks.mean()) == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize("name", ["mobilenet_v2", "vit_by_hand"])
def test_the_surgeon_costs_less_than_magnitude(name: str) -> None:
    task, network = _task(name)
    by_size, surgeon = (
        Sparsify(0.7, criterion, steps=4, ends=0.5)(network, task) for criterion in ("l1", "obs")
    )
    assert _error(surgeon, task) < 0.7 * _error(by_size, task)
    solved = Compensate(samples=32)(by_size, task)
    assert _error(solved, task) < _error(by_size, task)


def test_a_layer_alone_keeps_more_of_its_output() -> None:
    torch.manual_seed(0)
    mix = torch.randn(32, 32)
    data = Arrays(torch.randn(512, 32) @ mix, torch.arange(512) % 8, batch_size=128)
    task = Task(nn.Linear(32, 8, bias=False), data.x[:2], data, data)
    network = capture(task.model, task.example)
    errors = [
        _error(Sparsify(0.6, criterion, ends=1, steps=8)(network, task), task)
        for criterion in ("l1", "obs")
    ]
    assert errors[1] < 0.5 * errors[0]


TUNE = Tune(TuneOptions(epochs=1, lr=0.02, device="cpu"), recalibration_samples=8)
INT4 = Quantize(weights=4, ends=4, samples=8)
AFTER: dict[str, tuple[Pass, ...]] = {
    "sgd": (TUNE,),
    "adamw": (Tune(TuneOptions(epochs=1, optimizer="adamw", lr=1e-3), recalibration_samples=8),),
    "solved": (Compensate(samples=16),),
    "rounded": (INT4,),
    "equalized and corrected": (Equalize(), INT4, CorrectBias(samples=8)),
    "gptq": (INT4, Gptq(samples=8)),
    "learned": (INT4, Reconstruct(samples=8, steps=8, batch=8, drop=0)),
    "trained in integers": (INT4, TUNE),
}


@pytest.mark.parametrize(
    ("name", "after"),
    [*(("mobilenet_v2", after) for after in AFTER), ("vit_fused", "solved"), ("vit_fused", "sgd")],
)
def test_zeros_stay_zero(name: str, after: str, tmp_path: Path) -> None:
    task, network = _task(name, 16)
    sparse = Sparsify(0.6, "l1", "layer")(network, task)
    before, result = _zeros(sparse), sparse
    for step in AFTER[after]:
        result = step(result, task)
    changed = 0
    for key, zero in before.items():
        weight = result.tensor(key)
        assert bool((weight[zero] == 0).all()), key
        changed += int((weight != sparse.tensor(key)).any())
    assert changed or after == "rounded"
    save(result, tmp_path)
    again = restore(tmp_path, task.model, task.example)
    assert set(held(again)) == set(before)


def test_channels_may_go_afterwards() -> None:
    task, network = _task("plain_cnn")
    sparse = Sparsify(0.6, "l1", "layer")(network, task)
    cut = PruneChannels(0.5)(sparse, task)
    assert set(held(cut)) == set(held(sparse))
    solved = Compensate(samples=32)(cut, task)
    for key, zero in _zeros(cut).items():
        assert bool((solved.tensor(key)[zero] == 0).all())


def test_what_a_later_edit_replaced_holds_nothing() -> None:
    task, network = _task("plain_cnn")
    sparse = Sparsify(0.6, "l1", "layer")(network, task)
    with torch.no_grad():
        sparse.get_parameter("conv2.weight").normal_()
    assert "conv2.weight" not in held(sparse)


def test_zeros_that_are_there_stay_when_fewer_are_wanted() -> None:
    task, network = _task("plain_cnn")
    sparse = Sparsify(0.8, "l1", "layer", ends=1)(network, task)
    fewer = Sparsify(0.85, "obs", "layer", ends=0.5, steps=1, skip=("fc1",))(sparse, task)
    for key, zero in _zeros(sparse).items():
        assert bool((fewer.tensor(key)[zero] == 0).all())


def test_inputs_that_never_vary_need_no_weights() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 8)
    x[:, 4:] = x[:, :1]  # a singular covariance
    data = Arrays(x, torch.arange(64) % 4)
    task = Task(nn.Linear(8, 4), x[:2], data, data)
    network = capture(task.model, task.example)
    sparse = Sparsify(0.5, "obs", "layer", ends=1)(network, task)
    assert _error(sparse, task) < 0.1 * _error(Sparsify(0.5, "l1", ends=1)(network, task), task)
    silent = Task(task.model, x[:2], Arrays(0 * x, data.y), data)
    assert torch.isfinite(Sparsify(0.5, ends=1)(network, silent).get_parameter("weight")).all()


def test_a_singular_system_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match="the covariance of 2 inputs is singular; give more samp"):
        support_factors(torch.ones(2, 2), torch.ones(1, 2, dtype=torch.bool))


@pytest.mark.parametrize("most", [0.0, 1e12])
def test_solutions_on_a_support(most: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exact one and the iterative one agree with least squares on the columns that stay."""
    monkeypatch.setattr("penjing.arith.least_squares.MOST_OPERATIONS", most)
    torch.manual_seed(0)
    x, support = torch.randn(100, 12).double(), torch.rand(5, 12) < 0.5
    y = torch.randn(100, 5).double()
    found = solved_on_support(x.T @ x, y.T @ x, support)
    for row, kept, wanted in zip(found, support, y.T, strict=True):
        alone = torch.linalg.lstsq(x[:, kept], wanted[:, None]).solution[:, 0]
        least = (x[:, kept] @ alone - wanted).square().sum()
        assert (x @ row - wanted).square().sum() <= 1.0002 * least
        if most:
            torch.testing.assert_close(row[kept], alone)
        assert bool((row[~kept] == 0).all())


def test_inverses_of_blocks_are_those_of_the_whole_where_blocks_are_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    part = [(block := torch.randn(8, 8)) @ block.T + torch.eye(8) for _ in range(2)]
    moments, support = torch.zeros(16, 16), torch.rand(3, 16) < 0.6
    moments[:8, :8], moments[8:, 8:] = part
    whole = inverse_diagonals(moments, support)
    monkeypatch.setattr("penjing.passes.structure.sparse.surgeon.MOST_OPERATIONS", 1)
    torch.testing.assert_close(inverse_diagonals(moments, support), whole)


def test_a_recipe_in_an_order_that_works() -> None:
    Recipe([Sparsify(0.5), Compensate(), Tune(), Quantize(), Gptq()])
    with pytest.raises(InputError, match=r"pass 2 \(Sparsify\) has nothing to do after pass 1"):
        Recipe([Quantize(), Sparsify(0.5)])
    with pytest.raises(InputError, match="nothing has been removed yet"):
        Recipe([Sparsify(0.0), Compensate()])


BAD: list[tuple[dict[str, Any], str]] = [
    ({"sparsity": 1}, "sparsity must be in [0, 1); found 1"),
    ({"sparsity": -0.1}, "sparsity must be in [0, 1); found -0.1"),
    ({"sparsity": float("nan")}, "sparsity must be in [0, 1); found nan"),
    ({"ends": 1.5}, "ends must be in [0, 1]; found 1.5"),
    ({"damping": 0}, "damping must be in (0, 1); found 0"),
    ({"criterion": "l7"}, "criterion must be one of l1, l2, l1+l2, taylor, obs; found 'l7'"),
    ({"scope": "all"}, "scope must be one of global, layer; found 'all'"),
    ({"steps": 17}, "steps must be 1 to 16 and samples 2 or more; found 17 and 512"),
    ({"samples": 1}, "steps must be 1 to 16 and samples 2 or more; found 4 and 1"),
    ({"pattern": "4:2"}, "pattern must be None, N:M with N < M, such as '2:4', or a block"),
    ({"pattern": "4:4"}, "or a block of outputs and inputs, such as '1x4'; found '4:4'"),
    ({"pattern": "often"}, "found 'often'"),
    (
        {"pattern": "2:4", "sparsity": 0.8},
        "pattern '2:4' sets the sparsity to 0.5; found sparsity=0.8; leave it out",
    ),
]


@pytest.mark.parametrize(("options", "words"), BAD)
def test_bad_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        Sparsify(**options)


def test_layers_that_cannot_be_sparse() -> None:
    task, network = _task("plain_cnn")
    with pytest.raises(InputError, match=r"layers names 'conv9', but .* no such layer; it has con"):
        Sparsify(layers=("conv9",)).plan(network, task)
    with pytest.raises(InputError, match=r"skip names 'conv9'"):
        Sparsify(skip=("conv9",)).plan(network, task)
    with pytest.raises(
        InputError, match=r"layers names 'conv1', which can't be taken: its 3 inputs can't be div"
    ):
        Sparsify(pattern="2:4", layers=("conv1",)).plan(network, task)
    with pytest.raises(InputError, match=r"pattern '2:97' fits no layer of the network; conv1: it"):
        Sparsify(pattern="2:97").plan(network, task)
    plan = Sparsify(0.5, "l1", layers=("conv2",)).plan(network, task)
    assert list(plan.edits[0]["tensors"]) == ["conv2.weight"]


def test_the_plan_counts() -> None:
    task, network = _task("plain_cnn")
    plan = Sparsify(0.5, "l1", "layer", ends=1).plan(network, task)
    assert plan.summary == "sets 134232 of 268464 weights in 4 layers to zero"
    assert plan.notes[0] == "conv1: 216 of 432 weights stay"
    assert re.match(r"estimate: coded, these weights take \d+ bytes in place of", plan.notes[-2])
    assert plan.notes[-1].startswith("smaller, not faster")


@pytest.mark.parametrize(
    "tensors", [{}, [], {"conv2.weight": "some"}, {"conv2.weight": 1}, {"nowhere": "zeros"}, None]
)
def test_hostile_marks_are_refused(tensors: Any) -> None:
    task, network = _task("plain_cnn")
    plan = Sparsify(0.5, "l1").plan(network, task)
    data = plan.to_json()
    data["edits"] = [{"edit": "hold", "tensors": tensors}]
    with pytest.raises(UnsafeError):
        carry_out(network, type(plan).from_json(json.loads(json.dumps(data))))


def test_a_pattern_reads_what_it_says() -> None:
    assert Pattern.read("1x4") == Pattern(1, 4)
    assert Pattern.read(None) == Pattern()
    assert Pattern.read("1:4").share == 0.75
