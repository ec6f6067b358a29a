"""A network that is rounded is cut like any other: pruned equals masked, to files and by budget."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from penjing.contract import Plan
from penjing.measure.costs import costs
from penjing.measure.parity import departs, parity
from penjing.network import Network, capture, carry_out, find_axes, mask
from penjing.network.graph.qparams import scale_names
from penjing.passes import (
    Binarize,
    CorrectBias,
    Equalize,
    Gptq,
    Merge,
    Pass,
    PruneChannels,
    Quantize,
    Ternarize,
)
from penjing.passes.structure.channels.budget import Budget
from penjing.passes.structure.channels.importance import Criterion, importances
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task
from tests.reference_networks import NETWORKS, build

Recipe = tuple[Pass, ...]
NAMES = ["plain_cnn", "resnet_a", "mobilenet_v2", "vit_by_hand"]
ROUNDED: dict[str, Recipe] = {
    "a scale to a channel": (Quantize(samples=16),),
    "one scale": (Quantize(scales="tensor", samples=16),),
    "for NPUs": (
        Quantize(outputs=True, elementwise=True, split_silu=True, symmetric=True, samples=16),
    ),
    "weights in turn": (Quantize(weights=4, activations=None, samples=16), Gptq(samples=8)),
    "the ladder": (Equalize(), Quantize(samples=16), CorrectBias(samples=8)),
    "groups": (Quantize(weights=4, activations=None, group=16, samples=16),),
    "signs of values": (Binarize(weights=False),),
}
FEW_BITS: dict[str, Recipe] = {
    "ternary": (Ternarize("two", samples=16),),
    "ternary, 8 bit values": (Ternarize(activations=8, samples=16),),
    "binary": (Binarize(),),
    "binary throughout": (Binarize(shortcuts=True, learned_sign=True, ends=1),),
}


def _rounded(name: str, recipe: Recipe) -> tuple[Network, Task]:
    model, x = build(name)
    data = Arrays(x.repeat(4, 1, 1, 1), torch.arange(16) % 10, batch_size=8)
    task = Task(model, x[:2], data, data, data)
    network = capture(model, x[:2])
    for step in recipe:
        network = step(network, task)
    return network, task


def _shrunk(network: Network, keep: dict[str, list[int]]) -> Network:
    return carry_out(network, Plan("test", {}, ({"edit": "shrink", "axes": keep},)))


def _kept(network: Network, names: list[str], seed: int = 0) -> dict[str, list[int]]:
    axes, draw = find_axes(network), random.Random(seed)
    return {
        name: sorted(draw.sample(range(axes[name].size), max(1, int(axes[name].size * 0.6))))
        for name in names
    }


def _exact(network: Network) -> list[str]:
    return [name for name, group in find_axes(network).free.items() if not group.mixed]


def _apart(one: Network, other: Network, x: torch.Tensor) -> float:
    """In float64, so that no value on the edge between two integers falls to either side."""
    with torch.no_grad():
        return float((one.double()(x.double()) - other.double()(x.double())).abs().max())


@pytest.mark.parametrize(
    ("name", "way"),
    [(NAMES[(k + step) % 4], way) for k, way in enumerate(ROUNDED) for step in (0, 2)],
)
def test_cut_after_rounding_equals_masked_after_rounding(name: str, way: str) -> None:
    network, task = _rounded(name, ROUNDED[way])
    assert not find_axes(network).trace.unknown
    keep = _kept(network, _exact(network))
    assert len(keep) > 1
    assert isinstance(task.test, Arrays)
    x = task.test.x
    cut, masked = _shrunk(network, keep), mask(network, keep)
    assert _apart(cut, masked, x) < 1e-8
    assert _apart(cut, network, x) > 1e-4
    scales = {name for name in scale_names(network) if network.tensor(name).dim()}
    assert all(len(cut.tensor(one)) <= len(network.tensor(one)) for one in scales)
    assert way in ("groups", "signs of values") or any(
        len(cut.tensor(one)) < len(network.tensor(one)) for one in scales
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_rounding_takes_no_axis_away(name: str) -> None:
    network, task = _rounded(name, ROUNDED["a scale to a channel"])
    before = find_axes(capture(task.model, task.example))
    assert list(find_axes(network).free) == list(before.free)


@pytest.mark.parametrize("way", FEW_BITS)
@pytest.mark.parametrize("name", ["plain_cnn", "mobilenet_v2", "vit_by_hand"])
def test_codes_of_few_bits_shrink_and_the_plan_says_what_changes(name: str, way: str) -> None:
    network, task = _rounded(name, FEW_BITS[way])
    assert isinstance(task.test, Arrays)
    x = task.test.x
    exact = _exact(network)
    if exact:
        keep = _kept(network, exact)
        assert _apart(_shrunk(network, keep), mask(network, keep), x) < 1e-8
    plan = PruneChannels(0.4).plan(network, task)
    words = (
        "binary weights all have the same magnitude"
        if "binary" in way
        else "the mean of a row of weights"
    )
    assert words in plan.summary
    cut = carry_out(network, plan)
    cut.train()
    cut(x).square().mean().backward()
    assert all(one.grad is not None and one.grad.shape == one.shape for one in cut.parameters())
    spared = PruneChannels(0.4, skip_mixed=True).plan(network, task)
    assert any(words in one.why for one in spared.left_alone)


def test_groups_with_one_scale_go_whole() -> None:
    network, _ = _rounded("plain_cnn", ROUNDED["groups"])
    before = network.tensor("fc2.weight_scale").shape
    assert before == (10, 128 / 16)
    cut = _shrunk(network, {"fc1[0]": [0, 3, 4]})
    assert cut.tensor("fc2.weight_scale").shape == (10, 3)
    assert cut.tensor("fc2.weight").shape == (10, 3 * 16)
    assert cut.tensor("fc1.weight_scale").shape[0] == 3 * 16


@pytest.mark.parametrize("name", ["plain_cnn", "resnet_a", "mobilenet_v2"])
def test_what_is_cut_after_rounding_reaches_the_runtime(name: str, tmp_path: Path) -> None:
    network, task = _rounded(name, ROUNDED["a scale to a channel"])
    cut = PruneChannels(0.5)(network, task)
    runtime = OnnxRuntime()
    whole, artifact = (
        runtime.lower(one, tmp_path / f"{number}.onnx") for number, one in enumerate((network, cut))
    )
    assert artifact.file_bytes < 0.6 * whole.file_bytes
    assert not departs(parity(cut, runtime.load(artifact), task.test))


@pytest.mark.parametrize("what", ["macs", "params"])
def test_a_budget_is_kept_after_rounding(what: str) -> None:
    network, task = _rounded("resnet_a", ROUNDED["a scale to a channel"])
    cut = PruneChannels(budget=Budget(what, 0.5))(network, task)  # type: ignore[arg-type]
    whole, left = (sum(getattr(layer, what) for layer in costs(one)) for one in (network, cut))
    assert 0.45 * whole < left <= 0.5 * whole


@pytest.mark.parametrize("criterion", ["l1", "l2"])
@pytest.mark.parametrize("group", [None, 16])
def test_scales_have_no_say_in_what_matters(criterion: Criterion, group: int | None) -> None:
    """Whether an axis' readers have one scale or many, its indices are ranked by their weights."""
    network, _ = _rounded("plain_cnn", (Quantize(activations=None, group=group, samples=16),))
    groups = find_axes(network).free
    before = importances(network, groups, criterion)
    with torch.no_grad():
        for name in scale_names(network):
            network.tensor(name).uniform_(0.1, 10.0)
    after = importances(network, groups, criterion)
    assert all(torch.equal(before[name], after[name]) for name in groups)


def test_a_rounded_network_is_not_merged() -> None:
    network, task = _rounded("plain_cnn", ROUNDED["a scale to a channel"])
    assert Merge(0.5).plan(network, task).edits == ()
