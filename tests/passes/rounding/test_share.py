"""Shared values: few of them, that they stay equal, and what a bit is worth."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from penjing.arith.codebooks import assigned_in_turn, code_bits, entropy_bits, k_means, nearest
from penjing.arith.rounding import rounded_in_turn
from penjing.errors import InputError
from penjing.measure.coding import coded_size
from penjing.network import Network, capture
from penjing.network.analysis.held import Groups, groups_of, held
from penjing.network.save import restore, save
from penjing.passes import (
    Compensate,
    CorrectBias,
    Equalize,
    Gptq,
    Merge,
    Pass,
    PruneChannels,
    Quantize,
    Reconstruct,
    Share,
    Sparsify,
    Tune,
)
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task
from penjing.trials.recipe import Recipe
from penjing.tune.options import TuneOptions
from tests.reference_networks import NETWORKS, build

LARGE = ("alexnet", "vgg")


def _task(name: str, samples: int = 16) -> tuple[Task, Network]:
    model, x = build(name)
    draw = torch.Generator().manual_seed(1)
    images = torch.randn(samples, *x.shape[1:], generator=draw)
    data = Arrays(images, torch.arange(samples) % 10, batch_size=8)
    return Task(model, x[:2], data, data), capture(model, x[:2])


def _error(network: Network, task: Task) -> float:
    assert isinstance(task.test, Arrays)
    with torch.no_grad():
        return float((network(task.test.x) - task.model(task.test.x)).square().mean())


def _distinct(weight: torch.Tensor) -> int:
    return len(torch.unique(weight))


def _groups(network: Network) -> dict[str, Groups]:
    return {name: groups_of(network.tensor(name)) for name in held(network)}


@pytest.mark.parametrize(
    ("name", "assignment"),
    [
        *((name, "nearest") for name in NETWORKS if name not in LARGE),
        ("mobilenet_v1", "rate"),
        ("vit_by_hand", "rate"),
    ],
)
def test_a_codebook_of_all_values_changes_nothing(name: str, assignment: Any) -> None:
    task, network = _task(name, 4)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.copy_((parameter * 40).round().clamp(-60, 60) / 40)
    shared = Share(256, assignment=assignment, rate=0.0, samples=4)(network, task)
    for key, tensor in network.state_dict().items():
        torch.testing.assert_close(shared.state_dict()[key], tensor, rtol=0, atol=1e-6)
    assert "values" in held(shared).values()


@pytest.mark.parametrize("assignment", ["nearest", "rate"])
@pytest.mark.parametrize("per", ["layer", "channel"])
@pytest.mark.parametrize("values", [2, 5])
def test_no_layer_has_more_values(values: int, per: Any, assignment: Any) -> None:
    task, network = _task("mobilenet_v2")
    shared = Share(values, per, assignment, samples=16)(network, task)
    for name in held(shared):
        weight = shared.tensor(name)
        rows = weight.flatten(1) if per == "channel" else weight.flatten()[None]
        assert max(map(_distinct, rows)) <= values


@pytest.mark.parametrize("assignment", ["nearest", "rate"])
def test_zeros_of_a_sparse_layer_are_a_value_of_their_own(assignment: Any) -> None:
    task, network = _task("mobilenet_v2")
    sparse = Sparsify(0.7, "l1", "layer", ends=1)(network, task)
    shared = Share(8, assignment=assignment, samples=16)(sparse, task)
    for name, mark in held(shared).items():
        old, new = sparse.tensor(name), shared.tensor(name)
        assert mark == "values"
        assert bool((new[old == 0] == 0).all())
        assert assignment == "rate" or bool((new[old != 0] != 0).all())
        assert _distinct(new) <= 8


TUNE = Tune(TuneOptions(epochs=1, lr=0.02, device="cpu"), recalibration_samples=8)
INT4 = Quantize(weights=4, ends=4, samples=8)
AFTER: dict[str, tuple[Pass, ...]] = {
    "sgd": (TUNE,),
    "adamw": (Tune(TuneOptions(epochs=1, optimizer="adamw", lr=1e-3), recalibration_samples=8),),
    "corrected": (Equalize(), INT4, CorrectBias(samples=8)),
    "gptq": (INT4, Gptq(samples=8)),
    "learned": (INT4, Reconstruct(samples=8, steps=2, batch=8)),
    "trained in integers": (INT4, TUNE),
}


@pytest.mark.parametrize(
    ("after", "per"), [*((after, "layer") for after in AFTER), ("sgd", "channel")]
)
def test_equal_weights_stay_equal(after: str, per: Any, tmp_path: Path) -> None:
    """Within each output channel, which all that comes later scales as one."""
    task, network = _task("mobilenet_v2")
    sparse = Sparsify(0.5, "l1", "layer")(network, task)
    shared = Share(6, per)(sparse, task)
    before, result = _groups(shared), shared
    for step in AFTER[after]:
        result = step(result, task)
    assert len(before) > 10
    for name, groups in before.items():
        weight = result.tensor(name)
        for row, index in zip(weight.flatten(1), groups.index.flatten(1), strict=True):
            pairs = torch.stack([row.double(), index.double()], 1)
            assert len(torch.unique(pairs, dim=0)) == _distinct(index)
        if groups.zero is not None:
            assert bool((weight[groups.index == groups.zero] == 0).all())
    save(result, tmp_path)
    assert held(restore(tmp_path, task.model, task.example)) == held(result)


def test_tuning_moves_the_values_by_the_mean_of_their_members_gradients() -> None:
    groups = groups_of(torch.tensor([[1.0, 0.0, 1.0], [2.0, 0.0, 1.0]]))
    averaged = groups.averaged(torch.tensor([[3.0, 5.0, 0.0], [7.0, 2.0, 0.0]]))
    assert averaged.tolist() == [[1.0, 0.0, 1.0], [7.0, 0.0, 1.0]]
    task, network = _task("plain_cnn")
    shared = Share(4)(network, task)
    tuned = TUNE(shared, task)
    for name in held(shared):
        assert not torch.equal(tuned.tensor(name), shared.tensor(name))


def test_single_weights_are_left_alone() -> None:
    task, network = _task("plain_cnn")
    shared = Share(8, skip=("fc2",))(PruneChannels(0.3)(network, task), task)
    words = "its weights share few values, which stay equal"
    for step, behind in (
        (Compensate(samples=8), ()),
        (Equalize(), ()),
        (Gptq(samples=8), (INT4,)),
        (Reconstruct(samples=8, steps=1, batch=4), (INT4,)),
        (Sparsify(0.5), ()),
    ):
        ready = shared
        for other in behind:
            ready = other(ready, task)
        alone = {left.what: left.why for left in step.plan(ready, task).left_alone}
        assert alone["conv2"] == words, step
        assert not isinstance(step, Compensate) or "fc2" not in alone


def test_the_error_that_moves_on_is_smaller() -> None:
    torch.manual_seed(0)
    mix = torch.randn(24, 24)
    data = Arrays(torch.randn(256, 24) @ mix, torch.arange(256) % 8, batch_size=64)
    task = Task(nn.Linear(24, 8), data.x[:2], data, data)
    network = capture(task.model, task.example)
    errors, sizes = [], []
    for share in (
        Share(4), Share(4, assignment="rate", rate=0.0), Share(4, assignment="rate", rate=2.0)
    ):  # fmt: skip
        shared = share(network, task)
        errors.append(_error(shared, task))
        sizes.append(entropy_bits(shared.get_parameter("weight")))
    assert errors[1] < 0.9 * errors[0]
    assert errors[1] < errors[2]
    assert sizes[2] < 0.8 * sizes[1]


def test_free_bits_and_an_even_grid_are_rounding_in_turn() -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(5, 12), torch.randn(200, 12) @ torch.randn(12, 12)
    moments = (x.T @ x / 200).double()
    grid = torch.arange(-8, 8).double() * 0.25
    codes = assigned_in_turn(weight, moments, grid.expand(5, -1), torch.ones(16), 0.0)
    in_turn = rounded_in_turn(weight, moments, torch.full((5,), 0.25), (-8, 7), 1e-12)
    torch.testing.assert_close(grid[codes].float(), in_turn)


def test_singular_inputs_work() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 8)
    x[:, 4:] = x[:, :1]
    data = Arrays(x, torch.arange(64) % 4)
    task = Task(nn.Linear(8, 4), x[:2], data, data)
    network = capture(task.model, task.example)
    assert torch.isfinite(Share(4, assignment="rate")(network, task).get_parameter("weight")).all()
    still = Task(task.model, x[:2], Arrays(0 * x, data.y), data)
    assert torch.isfinite(Share(4, assignment="rate")(network, still).get_parameter("weight")).all()


def test_quantizing_adds_no_values() -> None:
    task, network = _task("plain_cnn")
    shared = Share(6)(network, task)
    rounded = Quantize(samples=8)(shared, task)
    for name in held(shared):
        for row, old in zip(rounded.tensor(name), shared.tensor(name), strict=True):
            assert _distinct(row) <= _distinct(old)


def test_the_size_by_entropy() -> None:
    task, network = _task("plain_cnn")
    plain = coded_size(network)
    assert plain.tensors == ()
    assert plain.estimated_bytes == 4 * sum(one.numel() for one in network.parameters())
    assert coded_size(network, 16).estimated_bytes == plain.estimated_bytes // 2
    sparse = Sparsify(0.9, "l1", "layer")(network, task)
    shared = Share(16)(sparse, task)
    sizes = [coded_size(one).estimated_bytes for one in (network, sparse, shared)]
    assert sizes[1] < 0.25 * sizes[0]
    assert sizes[2] < 0.3 * sizes[1]
    (conv2,) = (one for one in coded_size(shared).tensors if one.name == "conv2.weight")
    assert (conv2.values, conv2.nonzero) == (16, int((shared.tensor("conv2.weight") != 0).sum()))
    with pytest.raises(ValueError, match="bits must be 16 or 32; found 8"):
        coded_size(network, 8)


def test_k_means() -> None:
    torch.manual_seed(0)
    numbers = torch.randn(500)
    values = k_means(numbers, 8)
    spread = [(numbers - v[nearest(numbers, v)]).square().mean() for v in (
        values, torch.linspace(float(numbers.min()), float(numbers.max()), 8)
    )]  # fmt: skip
    assert len(values) == 8
    assert spread[0] < 0.7 * spread[1]
    assert k_means(torch.zeros(5), 4).tolist() == [0.0]
    assert code_bits(torch.tensor([0, 0]), 2).tolist() == [0.0, 2.0]


def test_orders() -> None:
    Recipe([Sparsify(0.5), Compensate(), Share(), Tune(), Quantize()])
    with pytest.raises(InputError, match=r"comes after pass 2 \(Share\) and would find no layer"):
        Recipe([PruneChannels(0.5), Share(), Compensate()])
    with pytest.raises(InputError, match="would find no weight to round, because equal weights"):
        Recipe([Share(), Quantize(), Gptq()])


BAD: list[tuple[dict[str, Any], str]] = [
    ({"values": 1}, "values must be 2 to 256; found 1"),
    ({"values": 257}, "values must be 2 to 256; found 257"),
    ({"values": 2.5}, "values must be 2 to 256; found 2.5"),
    ({"per": "row"}, "per must be one of layer, channel; found 'row'"),
    ({"assignment": "best"}, "assignment must be one of nearest, rate; found 'best'"),
    ({"rate": -1.0}, "rate must be 0 or more; found -1.0"),
    ({"samples": 1}, "samples must be 2 or more and damping in (0, 1); found 1 and 0.01"),
    ({"damping": 1.0}, "samples must be 2 or more and damping in (0, 1); found 512 and 1.0"),
]


@pytest.mark.parametrize(("options", "words"), BAD)
def test_bad_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        Share(**options)


def test_unknown_layers_are_refused() -> None:
    task, network = _task("plain_cnn")
    with pytest.raises(InputError, match="layers names 'conv9', but the network has no such layer"):
        Share(layers=("conv9",)).plan(network, task)


def test_what_a_later_pass_made_dense_is_held_no_more() -> None:
    """Rows of a dense layer are short, and two of their numbers may be equal by chance."""
    task, network = _task("resnet_a", 16)
    shared = Share(16)(network, task)
    merged = Merge(0.4)(shared, task)
    assert all(_distinct(merged.tensor(name)) <= 16 for name in held(merged))
    assert len(held(merged)) < len(held(shared))
    dense = set(held(shared)) - set(held(merged))
    solved = Compensate(samples=16)(merged, task)
    assert any(not torch.equal(solved.tensor(name), merged.tensor(name)) for name in dense)
