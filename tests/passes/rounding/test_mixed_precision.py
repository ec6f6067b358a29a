"""MixedPrecision: the exact best within the budget, in the bytes that the file really takes."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from penjing.arith.knapsack import choose
from penjing.contract import Plan
from penjing.errors import InputError
from penjing.network import Network, capture
from penjing.network.graph.qparams import weight_qparams
from penjing.passes import MixedPrecision, Quantize
from penjing.passes.rounding.sensitivity import sensitivities
from penjing.runtimes.onnx.profile import weight_bytes
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.tasks.task import Task


@pytest.mark.parametrize("seed", range(20))
def test_the_knapsack_finds_what_trying_everything_finds(seed: int) -> None:
    draw = random.Random(seed)
    sizes = [draw.randint(1, 5) for _ in range(6)]
    costs = [[draw.randint(0, 30) for _ in range(size)] for size in sizes]
    losses = [[draw.choice([0.0, 1.0, draw.random()]) for _ in range(size)] for size in sizes]
    budget = sum(map(min, costs)) + draw.randint(0, 60)

    def total(table: list[Any], options: tuple[int, ...]) -> float:
        return sum(row[one] for row, one in zip(table, options, strict=True))

    every = itertools.product(*(range(size) for size in sizes))
    best = min(total(losses, one) for one in every if total(costs, one) <= budget)
    found = tuple(choose(costs, losses, budget))
    assert total(costs, found) <= budget
    assert total(losses, found) == pytest.approx(best)
    with pytest.raises(InputError, match="the cheapest options cost"):
        choose(costs, losses, sum(map(min, costs)) - 1)


@pytest.fixture(scope="module")
def task() -> Task:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(inplace=True),
        nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 100),
    )  # fmt: skip
    batches = [(torch.randn(16, 3, 8, 8), torch.arange(16) % 10) for _ in range(3)]
    return Task(model.eval(), batches[0][0][:2], batches, batches)


@pytest.fixture(scope="module")
def network(task: Task) -> Network:
    return capture(task.model, task.example)


def _bits(network: Network) -> dict[str, int]:
    found = weight_qparams(network).items()
    return {str(layer.meta["layer"]): qparams.bits for layer, qparams in found}


def _reasons(plan: Plan) -> list[str]:
    """The notes that say why a layer has its width."""
    return [one for one in plan.notes if "loss" in one]


def test_a_loss_is_that_of_the_network_with_this_weight(network: Network, task: Task) -> None:
    layer = next(node for node in network.calls() if node.meta["layer"] == "3")
    other = network.tensor("3.weight") * 0.5
    changed = capture(task.model, task.example)
    with torch.no_grad():
        changed.tensor("3.weight").mul_(0.5)
        x = torch.cat([inputs for inputs, _ in task.train])
        mine, theirs = (one(x).log_softmax(1) for one in (changed, network))
    want = float((theirs.exp() * (theirs - mine)).sum(1).mean())
    weights = {layer: [network.tensor("3.weight"), other]}
    shares: list[float] = []
    found = sensitivities(network, task, weights, "kl", 48, lambda _, share: shares.append(share))
    assert shares == pytest.approx([0, 1 / 3, 2 / 3])
    assert found[layer] == pytest.approx([0.0, want], abs=1e-6)


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
def test_one_width_for_all_is_what_quantize_does(network: Network, task: Task, bits: int) -> None:
    mixed = MixedPrecision(bytes=1.0, widths=(bits,), samples=32).plan(network, task)
    same = Quantize(weights=bits, ends=bits, samples=32).plan(network, task)
    assert mixed.edits == same.edits


@pytest.mark.parametrize("loss", ["kl", "squares"])
def test_the_file_takes_the_bytes_that_were_predicted(
    network: Network, task: Task, loss: Any, tmp_path: Path
) -> None:
    """All that differs between two files is what the layers' weights take."""
    sizes, predicted = [], []
    for share in (0.1, 0.2):
        one = MixedPrecision(bytes=share, samples=32, loss=loss)
        plan = one.plan(network, task)
        made = one.apply(network, plan, task)
        file = OnnxRuntime().lower(made, tmp_path / f"{share}.onnx")
        sizes.append(weight_bytes(file.path))
        predicted.append(int(plan.summary.split(": ")[1].split()[0]))
        assert len(_reasons(plan)) == len(_bits(made)) == 4
    shared = 16  # what the unpacking function reads besides, once for each width
    assert abs((sizes[1] - sizes[0]) - (predicted[1] - predicted[0])) <= 5 * shared


def test_uniform_bytes_are_those_of_quantize(network: Network, task: Task, tmp_path: Path) -> None:
    made = {
        "mixed": MixedPrecision(uniform=4, samples=32)(network, task),
        "same": Quantize(weights=4, samples=32)(network, task),
    }
    sizes = {
        name: weight_bytes(OnnxRuntime().lower(one, tmp_path / f"{name}.onnx").path)
        for name, one in made.items()
    }
    assert sizes["mixed"] <= sizes["same"] + 80
    assert len(set(_bits(made["mixed"]).values())) > 1


def test_half_a_bit_allows_the_mean_of_what_both_widths_do(network: Network, task: Task) -> None:
    allowed = []
    for bits in (3, 3.5, 4):
        plan = MixedPrecision(uniform=bits, samples=32).plan(network, task)
        allowed.append(int(plan.summary.partition(" allowed")[0].split()[-1]))
    assert allowed[1] == pytest.approx((allowed[0] + allowed[2]) / 2, abs=1)
    assert allowed[0] < allowed[2]


def test_more_bytes_lose_less_and_skipped_layers_stay(network: Network, task: Task) -> None:
    lost = []
    for share in (0.08, 0.12, 0.2, 0.26):
        plan = MixedPrecision(bytes=share, samples=32).plan(network, task)
        lost.append(float(plan.summary.rpartition(" ")[2]))
    assert lost == sorted(lost, reverse=True)
    plan = MixedPrecision(bytes=0.2, samples=32, skip=("9",)).plan(network, task)
    assert [one.what for one in plan.left_alone] == ["9"]
    assert len(_reasons(plan)) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "give exactly one of bytes and uniform"),
        ({"bytes": 0.1, "uniform": 4}, "give exactly one of bytes and uniform"),
        ({"bytes": 0.0}, r"bytes must be in \(0, 1\]"),
        ({"uniform": 4, "widths": (1, 4)}, "must be 2 to 8 bits"),
        ({"uniform": 4, "widths": ()}, "must be 2 to 8 bits"),
        ({"uniform": 1.5}, "must be 2 to 8 bits"),
        ({"uniform": 4, "activations": 0}, "must be 2 to 8 bits"),
        ({"uniform": 4, "loss": "l1"}, "loss must be kl or squares"),
        ({"uniform": 4, "samples": 1}, "samples must be 2 or more"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        MixedPrecision(**options)


def test_what_no_width_reaches_is_refused_with_the_least(network: Network, task: Task) -> None:
    words = r"bytes=0.05 allows \d+ bytes, but widths of 2, 3, 4, 6, 8 bits take at least \d+"
    with pytest.raises(InputError, match=words):
        MixedPrecision(bytes=0.05, samples=32).plan(network, task)


def test_scores_are_needed_for_kl() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))
    batches = [(torch.randn(8, 6), torch.zeros(8)) for _ in range(2)]
    task = Task(model, batches[0][0][:2], batches, batches)
    network = capture(model, task.example)
    with pytest.raises(InputError, match="loss='kl' needs class scores"):
        MixedPrecision(uniform=6, samples=8).plan(network, task)
    assert MixedPrecision(uniform=6, loss="squares", samples=8).plan(network, task).edits
