"""Elementwise rounding: no operator of a network for an NPU reads real numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from penjing.arith.fake_quantize import FAKE_QUANTIZE
from penjing.network import Network, capture
from penjing.network.edits.fold import split_silu
from penjing.network.graph.layers import CLAMPS
from penjing.network.graph.qparams import qparams_in
from penjing.network.lowering.as_convolutions import write_as_convolutions
from penjing.passes.rounding.quantize import Quantize
from penjing.tasks.task import Task
from tests.reference_networks import NETWORKS, build
from tests.runtime_networks import Gated

aten = torch.ops.aten
CONSTRAINTS = {"outputs": True, "elementwise": True}


def _task(model: nn.Module, x: Tensor) -> Task:
    batches = [(torch.randn(16, *x.shape[1:]), torch.arange(16) % 5) for _ in range(2)]
    return Task(model.eval(), x[:2], batches, batches)


def _rounded(model: nn.Module, x: Tensor, **options: bool) -> Network:
    torch.manual_seed(0)
    task = _task(model, x)
    return Quantize(samples=32, **(CONSTRAINTS | options))(capture(task.model, task.example), task)  # type: ignore[arg-type]


def _reads_integers(node: fx.Node) -> bool:
    """It rounds, or reads only what is rounded; an activation may belong to the layer before it."""
    if node.target is FAKE_QUANTIZE or node.target in CLAMPS:
        return True
    computed = [one for one in node.all_input_nodes if one.op == "call_function"]
    return all(one.target is FAKE_QUANTIZE for one in computed)


@pytest.mark.parametrize("split", [False, True])
def test_every_operator_reads_integers(split: bool) -> None:
    network = _rounded(Gated(), torch.zeros(2, 3, 8, 8), split_silu=split)
    assert all(map(_reads_integers, network.calls()))
    targets = {node.target for node in network.calls()}
    assert targets.isdisjoint({aten.silu.default}) is split
    plain = _rounded(Gated(), torch.zeros(2, 3, 8, 8), elementwise=False)
    assert not all(map(_reads_integers, plain.calls()))


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_networks_stay_near(name: str) -> None:
    model, x = build(name)
    network = _rounded(model, x)
    with torch.no_grad():
        want = model(x)
        noise = (network(x) - want).square().mean() / want.var()
    assert float(noise) < 0.05


def test_bounded_activations_have_the_scale_of_their_kernels() -> None:
    network = _rounded(Gated(), torch.zeros(2, 3, 8, 8), split_silu=True)
    gates = [one for one in qparams_in(network) if "sigmoid" in str(one.source.target)]
    found = {(one.source.target, network.tensor(one.scale).item(), one.zero_point) for one in gates}
    steps = torch.tensor(1 / 256), torch.tensor(1 / 255)
    sigmoid, hard = aten.sigmoid.default, aten.hardsigmoid.default
    assert found == {(sigmoid, steps[0].item(), 0), (hard, steps[1].item(), 0)}


def test_a_product_with_a_number_or_a_parameter_stays() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1)
            self.factor = nn.Parameter(torch.rand(4, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.sigmoid(self.one(x) * 3) * self.factor)

    network = _rounded(Scaled(), torch.zeros(2, 3, 8, 8))
    products = [node for node in network.calls() if node.target is aten.mul.Tensor and node.users]
    by_three = next(node for node in products if 3 in node.args)
    assert [user.target for user in by_three.users] == [aten.sigmoid.default]


def test_silu_as_a_product_is_the_same() -> None:
    model = Gated().eval()
    network = capture(model, torch.randn(2, 3, 8, 8))
    split_silu(network)
    network.compile_graph()
    assert not any(node.target is aten.silu.default for node in network.calls())
    x = torch.randn(5, 3, 8, 8)
    torch.testing.assert_close(network(x), model(x))


class Gating(nn.Module):
    """A hard sigmoid between two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 1)
        nn.init.normal_(self.first.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(functional.hardsigmoid(self.first(x)))


@pytest.mark.parametrize("elementwise", [True, False])
def test_a_hard_sigmoid_becomes_a_convolution(elementwise: bool) -> None:
    torch.manual_seed(0)
    network = _rounded(Gating(), torch.zeros(2, 3, 8, 8), elementwise=elementwise)
    new = write_as_convolutions(network, ["gates"])
    assert not any(node.target is aten.hardsigmoid.default for node in new.calls())
    x = torch.randn(16, 3, 8, 8)
    with torch.no_grad():
        want, apart = network(x), (new(x) - network(x)).abs()
    assert float((apart > 1e-5).float().mean()) < 0.02  # on the edge between two integers
    assert float(apart.max()) < 0.05 * float(want.std())


def test_a_hard_sigmoid_of_real_numbers_stays() -> None:
    network = capture(Gating().eval(), torch.zeros(2, 3, 8, 8))
    assert write_as_convolutions(network, ["gates"]) is network
