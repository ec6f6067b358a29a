"""Quantize: the plan is data, the input stays, the integers are what the plan says."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from penjing.arith.fake_quantize import FAKE_QUANTIZE, fake_quantize
from penjing.contract import Plan
from penjing.errors import InputError
from penjing.network import Network, capture, carry_out
from penjing.network.graph.layers import LAYERS
from penjing.network.graph.qparams import qparams_in, value_qparams, weight_qparams
from penjing.network.lowering.form import Form
from penjing.network.lowering.integers import with_integers
from penjing.passes.rounding import places
from penjing.passes.rounding.quantize import Quantize
from penjing.tasks.task import Task


class Small(nn.Module):
    """Convolutions with batch norm, a residual add, a subsampling pad, a mean, a linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv3 = nn.Conv2d(8, 16, 3, 2, 1)
        self.linear = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)) + x)
        y = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        return self.linear(torch.relu(self.conv3(x) + y).mean((2, 3)))


@pytest.fixture(scope="module")
def task() -> Task:
    torch.manual_seed(0)
    model = Small()
    for norm in (model.bn1, model.bn2):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
        nn.init.normal_(norm.get_buffer("running_mean"))
        nn.init.uniform_(norm.get_buffer("running_var"), 0.5, 2.0)
    batches = [(torch.randn(16, 3, 8, 8), torch.arange(16) % 5) for _ in range(4)]
    return Task(model.eval(), batches[0][0][:2], batches, batches)


@pytest.fixture(scope="module")
def network(task: Task) -> Network:
    return capture(task.model, task.example)


def worst(one: Network, other: Network, task: Task) -> float:
    """Largest difference, relative to the spread of the outputs."""
    with torch.no_grad():
        x = task.train[1][0]  # type: ignore[index]
        want = other(x)
        return float((one(x) - want).abs().max() / want.std())


def test_folding_batch_norm_changes_no_number(network: Network, task: Task) -> None:
    folded = carry_out(network, Plan("fold", {}, ({"edit": "fold_batch_norm"},)))
    assert not any("batch_norm" in str(node.target) for node in folded.calls())
    assert worst(folded, network, task) < 1e-5


@pytest.mark.parametrize("ranges", ["mse", "percentile", "minmax"])
def test_outputs_stay_near(network: Network, task: Task, ranges: str) -> None:
    quantized = Quantize(ranges=ranges, samples=32)(network, task)  # type: ignore[arg-type]
    assert 0 < worst(quantized, network, task) < 0.25


def test_weights_are_int8_and_biases_int32(network: Network, task: Task) -> None:
    integers = with_integers(Quantize()(network, task))
    assert {torch.int8, torch.int32} <= {one.dtype for one in integers.state_dict().values()}


@pytest.mark.parametrize("form", [Form(), Form(torch.int8), Form(torch.int8, codes=False)])
@pytest.mark.parametrize(
    "options",
    [{}, {"weights": 4}, {"weights": 2, "activations": 4}, {"weights": 3, "ends": 3},
     {"activations": None, "weights": 4}, {"scales": "tensor"}, {"layers": {"conv2": 2}}],
)  # fmt: skip
def test_integers_give_the_same_numbers(
    network: Network, task: Task, options: dict[str, Any], form: Form
) -> None:
    """But for a value on the edge between two integers, here and there."""
    quantized = Quantize(**options)(network, task)
    x = task.train[1][0]  # type: ignore[index]
    with torch.no_grad():
        apart = (with_integers(quantized, form)(x) - quantized(x)).abs()
    assert float(apart.median()) < 1e-5


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
def test_weights_have_no_more_levels_than_bits_can_tell(
    network: Network, task: Task, bits: int
) -> None:
    quantized = Quantize(weights=bits, ends=2, activations=bits)(network, task)
    for qparams in weight_qparams(quantized).values():
        weight = fake_quantize(
            quantized.tensor(qparams.source_name),
            quantized.tensor(qparams.scale),
            *qparams.integers,
        )
        assert all(len(row.unique()) <= 2**bits for row in weight)
        assert qparams.bits == bits


def test_it_can_be_trained(network: Network, task: Task) -> None:
    quantized = Quantize(weights=4, activations=4)(network, task)
    quantized(task.train[0][0]).square().sum().backward()  # type: ignore[index]
    for name, one in quantized.named_parameters():
        assert one.grad is not None, name
        assert one.grad.any(), name


def test_plan_survives_json_and_gives_the_same_bits(network: Network, task: Task) -> None:
    plan = Quantize().plan(network, task)
    again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    x = task.train[0][0]  # type: ignore[index]
    one, other = carry_out(network, plan)(x), carry_out(network, again)(x)
    assert torch.equal(one, other)
    assert Quantize().plan(network, task).to_json() == plan.to_json()


def test_input_network_is_untouched(network: Network, task: Task) -> None:
    before = {name: one.clone() for name, one in network.state_dict().items()}
    Quantize()(network, task)
    assert all(torch.equal(one, before[name]) for name, one in network.state_dict().items())


def test_twice_is_once(network: Network, task: Task) -> None:
    quantized = Quantize()(network, task)
    plan = Quantize().plan(quantized, task)
    assert plan.edits == ()
    assert "already" in plan.left_alone[0].why


def test_skip_is_obeyed_and_listed(network: Network, task: Task) -> None:
    plan = Quantize(skip=("conv1",)).plan(network, task)
    assert [one.what for one in plan.left_alone] == ["conv1"]
    assert "skip" in plan.left_alone[0].why
    assert carry_out(network, plan).tensor("conv1.weight").dtype is torch.float32


def test_outputs_are_rounded_if_asked_for(network: Network, task: Task) -> None:
    x = task.train[1][0]  # type: ignore[index]
    plain, rounded = Quantize()(network, task), Quantize(outputs=True)(network, task)
    roundings = [one.name for one in rounded.graph.nodes if one.target is FAKE_QUANTIZE]
    assert len(roundings) == 1 + sum(one.target is FAKE_QUANTIZE for one in plain.graph.nodes)
    steps = rounded(x) / rounded.tensor("linear_scale")
    assert (steps - steps.round()).abs().max() < 1e-3
    assert (rounded(x) - plain(x)).abs().max() <= rounded.tensor("linear_scale")


def test_tied_weights_are_listed() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.one(torch.relu(self.one(x)))

    batches = [(torch.randn(8, 6), torch.zeros(8, dtype=torch.long))]
    task = Task(Tied(), batches[0][0], batches, batches)
    plan = Quantize(samples=8).plan(capture(task.model, task.example), task)
    assert plan.edits == ()
    assert plan.left_alone


@pytest.mark.parametrize(
    ("options", "words"), [({"ranges": "best"}, "ranges"), ({"samples": 0}, "samples")]
)
def test_wrong_options_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Quantize(**options)  # type: ignore[arg-type]


def test_scale_and_zero_point_worked_by_hand() -> None:
    """uint8 over -1..1.55: step 0.01, zero at 100; 0.004 rounds to 0 and 1.6 saturates."""
    q = torch.ops.quantized_decomposed
    x = torch.tensor([-1.0, 0.0, 0.004, 1.6])
    stored = q.quantize_per_tensor.default(x, 0.01, 100, 0, 255, torch.uint8)
    assert np.array_equal(stored.numpy(), [0, 100, 100, 255])


def test_one_image_is_not_enough_to_calibrate(network: Network, task: Task) -> None:
    x, y = task.train[0]  # type: ignore[index]
    alone = Task(task.model, task.example, [(x[:1], y[:1])], task.test)
    with pytest.raises(InputError, match="1 sample"):
        Quantize().plan(network, alone)


def test_a_value_that_never_changes_is_named(network: Network, task: Task) -> None:
    x, y = torch.ones(16, 3, 8, 8), torch.zeros(16, dtype=torch.long)
    plan = Quantize().plan(network, Task(task.model, task.example, [(x, y)], task.test))
    assert any("constant" in one.why for one in plan.left_alone)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("ranges", ["mse", "minmax", "percentile"])
def test_symmetric_ranges_have_zero_in_their_middle(
    network: Network, task: Task, ranges: Any, bits: int
) -> None:
    quantize = Quantize(activations=bits, symmetric=True, ranges=ranges, samples=64)
    found = quantize(network, task)
    values = value_qparams(found)
    assert values
    assert all(
        2 * qparams.zero_point == qparams.high + 1 and qparams.low == 0 for qparams in values
    )
    if bits == 8:
        assert worst(found, network, task) < 0.2


class Curved(nn.Module):
    """A layer before an operator on floats, and one that gives the output."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(nn.functional.gelu(self.up(x)))


def test_outputs_rounds_what_every_layer_gives() -> None:
    torch.manual_seed(0)
    batches = [(torch.randn(16, 6), torch.arange(16) % 4) for _ in range(2)]
    task = Task(Curved().eval(), batches[0][0][:2], batches, batches)
    network = capture(task.model, task.example)

    def rounded(outputs: bool = False) -> list[str]:
        found = Quantize(samples=32, outputs=outputs)(network, task)
        sources = {qparams.source.name for qparams in qparams_in(found)}
        layers = [node for node in found.calls() if node.target in LAYERS]
        return [str(node.meta["layer"]) for node in layers if node.name in sources]

    assert rounded() == []
    assert rounded(outputs=True) == ["up", "down"]


class Chained(nn.Module):
    """Convolutions of all that is there before them, as in a DenseNet's block.

    What the third gives is `times` as large, and not rounded if `curved`; what is joined to it is
    read by nothing else if not `read`; behind the first is a ReLU if `bent`.
    """

    def __init__(
        self, times: float = 1.0, curved: bool = False, read: bool = True, bent: bool = False
    ) -> None:
        super().__init__()
        self.curved, self.read, self.bent = curved, read, bent
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.third, self.last = nn.Conv2d(8 if read else 3, 4, 1), nn.Conv2d(12, 4, 1)
        with torch.no_grad():
            self.third.weight *= times

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x).relu() if self.bent else self.first(x)
        both = torch.cat([first, self.second(x)], 1)
        y = self.third(both if self.read else x)
        return self.last(torch.cat([both, y.sigmoid() if self.curved else y], 1)).mean((2, 3))


@pytest.mark.parametrize(
    ("options", "symmetric", "shares"),
    [
        ({}, False, [True, True]),
        ({}, True, [True, True]),
        ({"curved": True}, False, [True, False]),
        ({"times": 50.0}, False, [True, False]),
        ({"times": 50.0}, True, [True, False]),
        ({"times": 50.0, "read": False}, False, [True, True]),
        ({"times": 0.02}, False, [True, True]),
        ({"bent": True}, False, [False, True]),
        ({"bent": True}, True, [True, True]),
    ],
)
def test_a_concatenation_shares_its_parts_scale_unless_a_reader_would_lose(
    options: dict[str, Any], symmetric: bool, shares: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, task = chained(options)
    quantize = Quantize(samples=128, symmetric=symmetric)
    quantized = quantize(network, task)
    scales = {qparams.source.name: qparams.scale for qparams in value_qparams(quantized)}
    shared = [
        all(scales.get(part.name) == scales[node.name] for part in node.all_input_nodes)
        for node in network.calls()
        if node.target is torch.ops.aten.cat.default
    ]
    assert shared == shares
    monkeypatch.setattr(places, "WIDEST", 0.0)
    apart = quantize(network, task)
    x = task.train[0][0]  # type: ignore[index]
    error, before = ((one(x) - network(x)).square().mean() for one in (quantized, apart))
    assert error < 1.2 * before


@pytest.mark.parametrize(("options", "fewer"), [({}, 2), ({"times": 50.0}, 1)])
def test_a_joined_value_that_is_not_rounded_again_is_the_same(
    options: dict[str, Any], fewer: int
) -> None:
    network, task = chained(options)
    quantized = Quantize(samples=128)(network, task)
    once, again = (with_integers(quantized, Form(joins=one)) for one in (False, True))
    x = task.train[0][0]  # type: ignore[index]
    assert torch.equal(once(x), again(x))
    counts = [
        sum("quantize_per_tensor" in str(n.target) for n in one.calls()) for one in (once, again)
    ]
    assert counts[1] - counts[0] == 2 * fewer


def chained(options: dict[str, Any]) -> tuple[Network, Task]:
    torch.manual_seed(0)
    batches = [(torch.randn(64, 3, 8, 8), torch.arange(64) % 4) for _ in range(2)]
    task = Task(Chained(**options).eval(), batches[0][0][:2], batches, batches)
    return capture(task.model, task.example), task


@pytest.mark.parametrize("scales", ["channel", "tensor"])
@pytest.mark.parametrize("share", [0.0, 1e-9])
def test_a_channel_of_next_to_no_weights_keeps_its_bias(share: float, scales: Any) -> None:
    """Its own scale would be so small that the bias, in steps of it, is beyond 32 bits."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 4)).eval()
    batches = [(torch.randn(16, 3, 5, 5), torch.arange(16) % 4) for _ in range(2)]
    with torch.no_grad():
        for layer in ("0", "3"):
            model.get_parameter(f"{layer}.weight")[1] *= share
            model.get_parameter(f"{layer}.bias")[1] = 1.5
    task = Task(model, batches[0][0][:2], batches, batches)
    network = capture(model, task.example)
    assert worst(Quantize(samples=32, scales=scales)(network, task), network, task) < 0.1
