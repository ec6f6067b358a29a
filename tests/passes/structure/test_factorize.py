"""Factors of layers: exact at full rank, better with data, and joined with the other passes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from penjing.arith.kernel_factors import SCHEMES, full_ranks, why_not
from penjing.contract import Plan
from penjing.errors import InputError, UnsafeError
from penjing.measure.costs import costs
from penjing.measure.latency_table import LatencyTable
from penjing.measure.parity import parity
from penjing.network import Network, capture, carry_out, find_axes
from penjing.network.analysis.rows import rows_given, rows_read, sampled
from penjing.network.edits.factorize import factor_nodes, why_not_factorized
from penjing.network.edits.shrink import mask
from penjing.network.graph.layers import Layer, layers_of
from penjing.network.save import restore, save
from penjing.passes import Compensate, Factorize, PruneChannels, Quantize, Tune
from penjing.passes.structure.channels.budget import Budget
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task
from penjing.trials import recipe as recipes
from penjing.tune.options import TuneOptions
from tests.reference_networks import NETWORKS, build


def _task(model: nn.Module, x: Tensor, samples: int = 32) -> Task:
    """Images whose neighbours are alike, as in real ones."""
    noise = torch.randn(samples, *x.shape[1:], generator=torch.Generator().manual_seed(1))
    images = 3 * functional.avg_pool2d(noise, 3, 1, 1)
    data = Arrays(images, torch.arange(samples) % 10, batch_size=16)
    return Task(model, x[:2], data, data)


def _known(name: str, samples: int = 32) -> tuple[Task, Network]:
    model, x = build(name)
    return _task(model, x, samples), capture(model, x[:2])


def _distance(one: Network, other: Network, task: Task) -> float:
    with torch.no_grad():
        pairs = [(one(x), other(x)) for x, _ in task.test]
    return float(torch.cat([(a - b).flatten() for a, b in pairs]).square().mean().sqrt())


def _full(network: Network, scheme: str) -> dict[str, Sequence[int]]:
    """The full ranks of all layers for which a scheme is."""
    ranks: dict[str, Sequence[int]] = {}
    for node in layers_of(network):
        shape = network.tensor(Layer(node).weight_name).shape
        if not why_not_factorized(network, node) and not why_not(scheme, shape):
            ranks[node.meta["layer"]] = full_ranks(scheme, shape)
    return ranks


def _macs(network: Network) -> int:
    return sum(layer.macs for layer in costs(network))


@pytest.mark.parametrize("name", NETWORKS)
def test_full_ranks_equal_the_original(name: str) -> None:
    task, network = _known(name, samples=8)
    x = task.example
    for scheme in SCHEMES:
        ranks = _full(network, scheme)
        basis = {"channel": "outputs", "spatial": "weights"}.get(scheme, "inputs")
        assert ranks
        factorize = Factorize(ranks=ranks, scheme=scheme, basis=basis, samples=8)
        made = factorize(network, task)
        assert len(layers_of(made)) > len(layers_of(network))
        torch.testing.assert_close(made(x), network(x), rtol=1e-5, atol=1e-5)


TIMES = LatencyTable("onnxruntime", "here", (("conv1", 3, 16, 1.0),))


class Sides(nn.Module):
    """Convolutions with all that they can be given."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, (3, 5), **options), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))


OPTIONS: list[dict[str, Any]] = [
    {"stride": (2, 3), "padding": (1, 2), "dilation": (2, 1)},
    {"padding": "same", "bias": False, "dilation": (1, 2)},
    {"padding": "valid", "stride": 2},
    {"padding": (2, 0), "padding_mode": "circular"},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("scheme", ["channel", "spatial", "tucker"])
def test_stride_padding_and_dilation_go_to_the_right_factor(
    scheme: str, options: dict[str, Any]
) -> None:
    model, x = Sides(**options).eval(), torch.randn(2, 3, 20, 22)
    task, network = _task(model, x), capture(model, x)
    ranks = _full(network, scheme)
    made = Factorize(ranks=ranks, scheme=scheme, basis="weights")(network, task)
    torch.testing.assert_close(made(x), network(x), rtol=1e-5, atol=1e-5)


def test_the_last_factor_keeps_node_weight_and_bias() -> None:
    task, network = _known("plain_cnn")
    made = Factorize(ranks={"conv2": [6, 8], "fc1": 5}, samples=8)(network, task)
    nodes = {node.name: node for node in made.graph.nodes}
    shapes = {name: tuple(tensor.shape) for name, tensor in made.state_dict().items()}
    assert shapes["conv2.reduce.weight"] == (6, 16, 1, 1)
    assert shapes["conv2.core.weight"] == (8, 6, 3, 3)
    assert shapes["conv2.weight"] == (32, 8, 1, 1)
    assert shapes["fc1.reduce.weight"] == (5, 2048)
    assert (shapes["fc1.weight"], shapes["fc1.bias"]) == ((128, 5), (128,))
    factors = factor_nodes(nodes["max_pool2d"], nodes["conv2d_1"])
    assert factors is not None
    assert [node.name for node in factors] == ["conv2d_1_reduce", "conv2d_1_core", "conv2d_1"]
    assert [node.meta["layer"] for node in factors] == ["conv2.reduce", "conv2.core", "conv2"]
    assert factor_nodes(nodes["x"], nodes["conv2d"]) is None
    assert factor_nodes(nodes["x"], nodes["conv2d_1"]) is None


def test_a_name_that_is_taken_is_not_taken_again() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = (nn.Parameter(torch.randn(6, 6)) for _ in range(2))
            self.reduce = nn.Linear(6, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.reduce(functional.linear(functional.linear(x, self.one), self.two))

    model, x = Named().eval(), torch.randn(4, 6)
    network = capture(model, x)
    names = [node.name for node in layers_of(network)]
    layers = {name: {"scheme": "matrices", "ranks": [6]} for name in names}
    made = carry_out(network, Plan("Factorize", {}, ({"edit": "factorize", "layers": layers},)))
    assert {"one_reduce.weight", "two_reduce.weight", "reduce.reduce.weight"} <= set(
        made.state_dict()
    )
    torch.testing.assert_close(made(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scheme", ["channel", "spatial", "tucker"])
@pytest.mark.parametrize("name", ["plain_cnn", "resnet_a"])
def test_data_brings_the_outputs_nearer(name: str, scheme: str) -> None:
    task, network = _known(name)
    distances = []
    ranks = {
        layer: [max(1, rank // 3) for rank in full]
        for layer, full in _full(network, scheme).items()
    }
    for basis in ("inputs", "weights"):
        made = Factorize(ranks=ranks, scheme=scheme, basis=basis, samples=32)(network, task)
        distances.append(_distance(made, network, task))
    assert distances[0] < 0.8 * distances[1]


def test_more_energy_is_nearer_and_costs_more() -> None:
    task, network = _known("vgg")
    distances, spent = [], []
    for energy in (0.5, 0.8, 0.95):
        factorize = Factorize(energy, samples=32)
        plan = factorize.plan(network, task)
        made = factorize.apply(network, plan, task)
        distances.append(_distance(made, network, task))
        spent.append(_macs(made))
        shares = [note.split("keeps ")[1].split("%")[0] for note in plan.notes]
        assert min(map(float, shares)) >= 100 * energy - 0.05
        assert f"{_macs(network):,} to {_macs(made):,} MACs" in plan.summary
    assert distances == sorted(distances, reverse=True)
    assert spent == sorted(spent)
    assert spent[-1] < _macs(network)


@pytest.mark.parametrize(("what", "scheme"), [("macs", "auto"), ("params", "channel")])
def test_a_budget_is_kept(what: Any, scheme: str) -> None:
    task, network = _known("resnet_a")
    made = Factorize(budget=Budget(what, 0.6), scheme=scheme, samples=16)(network, task)
    before, after = (
        _macs(one) if what == "macs" else sum(p.numel() for p in one.parameters())
        for one in (network, made)
    )
    assert 0.57 * before < after <= 0.6 * before


def test_ranks_are_multiples() -> None:
    task, network = _known("vgg")
    plan = Factorize(0.8, multiple=8, basis="weights").plan(network, task)
    ranks = [rank for how in plan.edits[0]["layers"].values() for rank in how["ranks"]]
    assert ranks
    assert all(rank % 8 == 0 for rank in ranks)


def test_compensation_solves_the_last_factor_and_leaves_the_others() -> None:
    task, network = _known("resnet_a", samples=64)
    made = Factorize(budget=Budget("macs", 0.4), basis="weights", scheme="spatial")(network, task)
    plan = Compensate(samples=64).plan(made, task)
    alone = {one.what for one in plan.left_alone}
    factors = {str(node.meta["layer"]) for node in layers_of(made) if "factor_of" in node.meta}
    assert alone == factors
    assert len(plan.parts or ()) == len(layers_of(network))
    solved = Compensate(samples=64)(made, task)
    assert _distance(solved, network, task) < 0.8 * _distance(made, network, task)
    for name in factors:
        key = f"{name}.weight"
        assert torch.equal(solved.get_parameter(key), made.get_parameter(key))


@pytest.mark.parametrize("scheme", ["channel", "spatial", "tucker", "matrices"])
@pytest.mark.parametrize("name", ["plain_cnn", "resnet_b"])
def test_pruned_factors_equal_masked_ones(name: str, scheme: str) -> None:
    task, network = _known(name)
    ranks = {
        layer: [max(2, rank // 2) for rank in full]
        for layer, full in _full(network, scheme).items()
    }
    made = Factorize(ranks=ranks, scheme=scheme, basis="weights")(network, task)
    axes = find_axes(made)
    inner = {axis for axis in axes.free if axis.endswith((".reduce", ".core"))}
    assert len(inner) == len(ranks) * (2 if scheme == "tucker" else 1)
    keep = PruneChannels(0.5).plan(made, task).edits[0]["axes"]
    assert inner <= keep.keys()
    cut = carry_out(made, Plan("cut", {}, ({"edit": "shrink", "axes": keep},)))
    x = task.example
    torch.testing.assert_close(cut(x), mask(made, keep)(x), rtol=1e-4, atol=1e-5)


def test_factors_are_tuned_rounded_exported_and_restored(tmp_path: Path) -> None:
    task, network = _known("plain_cnn")
    made = Factorize(budget=Budget("macs", 0.6), samples=16)(network, task)
    made = Tune(TuneOptions(epochs=1, lr=0.01), recalibration_samples=8)(made, task)
    runtime = OnnxRuntime()
    for number, one in enumerate((made, Quantize(samples=16)(made, task))):
        session = runtime.load(runtime.lower(one, tmp_path / f"{number}.onnx"))
        assert parity(one, session, task.test).same_decisions == 1.0
        save(one, tmp_path / str(number))
        again = restore(tmp_path / str(number), build("plain_cnn")[0], task.example)
        assert torch.equal(again(task.example), one(task.example))


def test_factors_of_factors() -> None:
    task, network = _known("plain_cnn")
    once = Factorize(ranks={"conv2": 24}, scheme="channel", samples=8)(network, task)
    twice = Factorize(ranks={"conv2.reduce": 20, "conv2": 12}, scheme="auto", samples=8)(once, task)
    names = {"conv2.reduce.reduce.weight", "conv2.reduce.weight", "conv2.weight_reduce.weight"}
    assert names <= set(twice.state_dict())
    assert torch.isfinite(twice(task.example)).all()


def test_what_can_not_become_factors_is_named() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.grouped = nn.Conv2d(4, 8, 3, padding=1, groups=2)
            self.up = nn.ConvTranspose2d(8, 4, 2, 2)
            self.shared = nn.Conv2d(4, 4, 3, padding=1)
            self.register_buffer("fixed", torch.randn(4, 4, 3, 3))
            self.head = nn.Linear(4, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = self.shared(self.shared(self.up(self.grouped(x))))
            x = functional.conv2d(x, self.get_buffer("fixed"))
            return self.head(x.mean((2, 3)))

    model, x = Odd().eval(), torch.randn(2, 4, 8, 8)
    plan = Factorize(basis="weights").plan(capture(model, x), _task(model, x))
    reasons = {(left.what, left.why) for left in plan.left_alone}
    assert {
        ("grouped", "it has 2 groups"),
        ("up", "it is a transposed convolution"),
        ("shared", "its weight is shared with another operator"),
    } <= reasons
    assert "its weight is a constant" in {why for _, why in reasons}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"energy": 0.0}, r"energy must be in \(0, 1\], as the share to keep; found 0.0"),
        ({"energy": 1.5}, "found 1.5"),
        ({"energy": 0.5, "budget": Budget("macs", 0.5)}, "how much to keep; give only one"),
        ({"ranks": {"conv1": 2}, "budget": Budget("macs", 0.5)}, "give only one"),
        ({"budget": Budget("latency", 0.5, TIMES)}, "the latency table has no times of factors"),
        ({"scheme": "cp"}, "scheme must be one of auto, matrices, channel.*found 'cp'"),
        ({"basis": "labels"}, "basis must be one of inputs, outputs, weights; found 'labels'"),
        ({"basis": "outputs", "scheme": "tucker"}, "use the basis 'inputs', or the scheme"),
        ({"multiple": 0}, "multiple must be 1 or more and samples 2 or more; found 0 and 512"),
        ({"samples": 1}, "found 1 and 1"),
        ({"ranks": {"conv1": 0}}, r"a rank of 1 or more, or the two ranks .* found {'conv1': 0}"),
        ({"ranks": {"conv1": [1, 2, 3]}}, "ranks must give for each layer"),
        ({"ranks": {"conv1": 2.5}}, "ranks must give for each layer"),
        ({"ranks": 3}, "ranks must give for each layer"),
        ({"ranks": {"conv9": 3}}, "ranks names 'conv9', .* no such layer; .* conv1"),
        ({"skip": ("conv9",)}, "skip names 'conv9', .* no such layer; .* conv1"),
        ({"ranks": {"conv1": 17}}, "ranks of conv1: the full rank is 16; found 17"),
        ({"ranks": {"conv1": [3, 28]}}, "the full rank is 3 and 16; found 3 and 28"),
        ({"ranks": {"fc1": [3, 4]}}, "the scheme 'tucker' can't be used: it has no kernel"),
        ({"ranks": {"conv1": [3, 4]}, "scheme": "channel"}, r"takes 1 rank\(s\); found \[3, 4\]"),
        ({"ranks": {"conv1": 3}, "skip": ("conv1",)}, "'conv1', which can't be written"),
        ({"budget": Budget("macs", 0.001)}, "0.1% of the macs can't be reached: .* skip"),
    ],
)  # fmt: skip
def test_bad_options_are_refused(options: dict[str, Any], words: str) -> None:
    task, network = _known("plain_cnn", samples=4)
    with pytest.raises(InputError, match=words) as raised:
        Factorize(**options).plan(network, task)
    assert "\n" not in str(raised.value)


def test_a_hostile_edit_is_refused() -> None:
    _, network = _known("plain_cnn")

    def made(**how: Any) -> Plan:
        return Plan("Factorize", {}, ({"edit": "factorize", "layers": {"conv2d": how}},))

    with pytest.raises(UnsafeError, match="layers must be an object that gives for each node"):
        carry_out(network, made(scheme="channel", ranks=[True]))
    with pytest.raises(UnsafeError, match="layer 'conv2d': the full rank is 16; found 99"):
        carry_out(network, made(scheme="channel", ranks=[99]))
    with pytest.raises(UnsafeError, match="layer 'conv2d': the scheme 'matrices' can't be used"):
        carry_out(network, made(scheme="matrices", ranks=[3]))


def test_options_survive_json() -> None:
    step = Factorize(ranks={"conv1": 3, "conv2": (4, 5)})
    assert step.ranks == {"conv1": [3], "conv2": [4, 5]}
    (again,) = recipes.from_json(json.loads(json.dumps(recipes.to_json((step,)))))
    assert again == step


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 4, (3, 2), (2, 1), (1, 2), (2, 1)),
        nn.Conv1d(3, 4, 3, 2, 1),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Linear(5, 4),
    ],
)
def test_sampled_rows_are_rows(layer: nn.Module) -> None:
    """Each is one of all rows, with the output that belongs to it."""
    size = {nn.Linear: (6, 7, 5), nn.Conv1d: (6, 3, 20)}.get(type(layer), (6, 3, 11, 12))
    x = torch.randn(size) if getattr(layer, "groups", 1) == 1 else torch.randn(6, 4, 11, 12)
    network = capture(layer.eval(), x)
    (node,) = layers_of(network)
    weight, y = network.tensor(Layer(node).weight_name), layer(x)
    every, given = rows_read(node, weight, x), rows_given(node, y)
    draws = [torch.Generator().manual_seed(3) for _ in range(2)]
    rows, outputs = sampled(node, weight, x, y, 10, draws[0])
    index = torch.randint(len(every), (10,), generator=draws[1])
    assert torch.equal(rows, every[index])
    assert torch.equal(outputs, given[index])
    assert torch.equal(sampled(node, weight, x, y, 10**6, draws[0])[0], every)
    assert isinstance(node, fx.Node)
