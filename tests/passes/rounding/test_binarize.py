"""Binarize: signs and their gradients by hand, the plan as data, bits that decide alike."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from penjing.arith.binary import BINARIZE, SIGN, binarize, sign
from penjing.contract import Plan
from penjing.errors import InputError
from penjing.measure.parity import parity
from penjing.network import Network, capture, carry_out, restore, save
from penjing.network.analysis.activation_cache import ActivationCache
from penjing.network.graph.layers import LAYERS
from penjing.network.lowering.packed_bits import packed_bits
from penjing.passes import Binarize, Tune
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.tasks.task import Task
from penjing.tune.options import TuneOptions


class Mlp(nn.Module):
    """Three linear layers with batch norms; widths that fill no whole byte."""

    def __init__(self, bias: bool = False) -> None:
        super().__init__()
        widths = (21, 19, 18, 5)
        pairs = list(itertools.pairwise(widths))
        self.layers = nn.ModuleList(nn.Linear(*one, bias=bias) for one in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm1d(one) for _, one in pairs)

    def forward(self, x: Tensor) -> Tensor:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = norm(layer(x))
        return x


class Cnn(nn.Module):
    """ReLUs that one layer reads, that are pooled, and that a sum reads too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv3, self.bn3 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.linear = nn.Linear(8 * 4 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu_()
        y = self.bn2(self.conv2(x)).relu_()
        x = (self.bn3(self.conv3(y)) + x).relu()
        return self.linear(nn.functional.max_pool2d(x, 2).flatten(1))


def task_of(model: nn.Module, *shape: int) -> Task:
    torch.manual_seed(0)
    for one in model.modules():
        if isinstance(one, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(one.weight)  # of both signs
            nn.init.normal_(one.bias)
            nn.init.normal_(one.get_buffer("running_mean"))
            nn.init.uniform_(one.get_buffer("running_var"), 0.5, 4.0)
    batches = [(torch.randn(16, *shape), torch.arange(16) % 5) for _ in range(2)]
    return Task(model.eval(), batches[0][0][:2], batches, batches)


@pytest.fixture(scope="module")
def cnn() -> tuple[Network, Task]:
    task = task_of(Cnn(), 2, 8, 8)
    return capture(task.model, task.example), task


def targets(network: Network, position: int) -> list[Any]:
    """What stands at that argument of each layer."""
    nodes = [node for node in network.calls() if node.target in LAYERS]
    return [node.args[position].target for node in nodes]  # type: ignore[union-attr]


def test_signs_and_their_gradient_by_hand() -> None:
    x = torch.tensor([-1.5, -0.75, -0.0, 0.0, 0.25, 1.0], requires_grad=True)
    found = sign(x)
    assert found.tolist() == [-1, -1, 1, 1, 1, 1]
    torch.autograd.backward(found, torch.full((6,), 2.0))
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 4, 4, 3, 0]  # 2 (2 - 2 |x|)


def test_binary_weights_and_their_gradients_by_hand() -> None:
    weight = torch.tensor([[0.5, -2.0], [0.0, 0.1]], requires_grad=True)
    scale = torch.tensor([3.0, 0.5], requires_grad=True)
    found = binarize(weight, scale)
    assert found.tolist() == [[3, -3], [0.5, 0.5]]
    torch.autograd.backward(found, torch.tensor([[1.0, 10.0], [2.0, 4.0]]))
    assert weight.grad is not None
    assert scale.grad is not None
    assert weight.grad.tolist() == [[3, 0], [1, 2]]
    assert scale.grad.tolist() == [1 - 10, 2 + 4]
    assert binarize(weight).tolist() == [[1, -1], [1, 1]]


@pytest.mark.parametrize("bias", [False, True])
def test_bits_decide_as_the_network_does_to_the_sum(bias: bool) -> None:
    task = task_of(Mlp(bias), 21)
    network = Binarize(ends=1)(capture(task.model, task.example), task)
    packed = packed_bits(network)
    x = torch.randn(300, 21)
    sums, scores = layer_sums(network, x), network(x).detach().numpy()
    found = packed.sums(x.numpy())
    for layer, one, other in zip(packed.layers, found, sums, strict=True):
        assert np.array_equal(np.abs(one), np.abs(other))
        if layer.thresholds is None:
            assert np.array_equal(one, other)
    assert np.array_equal(packed.run(x.numpy()).argmax(1), scores.argmax(1))
    np.testing.assert_allclose(packed.run(x.numpy()), scores, rtol=1e-5, atol=1e-5)
    assert packed.weight_bytes == 19 * 3 + 18 * 3 + 5 * 3


def test_ties_are_decided_alike() -> None:
    """Of a fresh network, whose norms are 0 and 1, every tenth sum or so is 0."""
    model = Mlp().eval()
    task = Task(model, torch.randn(2, 21), [], [])
    network = Binarize(ends=1)(capture(model, task.example), task)
    x = torch.randn(500, 21)
    sums = layer_sums(network, x)
    assert np.array_equal(packed_bits(network).sums(x.numpy())[-1], sums[-1])
    assert (sums[1] == 0).any() or (sums[2] == 0).any()


def layer_sums(network: Network, x: Tensor) -> list[Any]:
    run = ActivationCache(network, [x])
    return [run.value(node)[0].numpy() for node in network.calls() if node.target in LAYERS]


def test_what_is_not_binary_is_not_put_on_bits(cnn: tuple[Network, Task]) -> None:
    task = task_of(Mlp(), 21)
    network = capture(task.model, task.example)
    with pytest.raises(
        InputError, match=r"layers.0: its input isn't binary; apply Binarize\(ends=1\)"
    ):
        packed_bits(Binarize()(network, task))
    with pytest.raises(InputError, match="conv1 is a convolution"):
        packed_bits(cnn[0])


def test_signs_are_read_before_the_relu(cnn: tuple[Network, Task]) -> None:
    network, task = cnn
    plan = Binarize(ends=1).plan(network, task)
    assert plan.edits[0]["dropped"] == ["relu__1", "relu"]  # behind bn2, and behind the sum
    binary = carry_out(network, plan)
    assert targets(binary, 0) == [SIGN] * 4
    assert targets(binary, 1) == [BINARIZE] * 4
    for node in binary.calls():
        if node.target is SIGN:
            assert "relu" not in str(node.args[0])


def test_the_ends_keep_eight_bits_and_real_inputs(cnn: tuple[Network, Task]) -> None:
    network, task = cnn
    binary = Binarize()(network, task)
    fake = torch.ops.penjing.fake_quantize.default
    assert targets(binary, 1) == [fake, BINARIZE, BINARIZE, fake]
    assert [one is SIGN for one in targets(binary, 0)] == [False, True, True, False]


@pytest.mark.parametrize(
    "options",
    [{}, {"ends": 1}, {"ends": None}, {"weights": False}, {"activations": False},
     {"shortcuts": True}, {"shortcuts": True, "learned_sign": True, "ends": 1}],
)  # fmt: skip
def test_the_file_gives_the_same_numbers_and_training_reaches_all(
    cnn: tuple[Network, Task], options: dict[str, Any], tmp_path: Path
) -> None:
    network, task = cnn
    binary = Binarize(**options)(network, task)
    session = OnnxRuntime().load(OnnxRuntime().lower(binary, tmp_path / "m.onnx"))
    found = parity(binary, session, task.test)
    assert found.max_difference < 1e-5
    binary.train()(task.train[0][0]).square().sum().backward()  # type: ignore[index]
    for name, one in binary.named_parameters():
        assert one.grad is not None, name
        assert torch.isfinite(one.grad).all()


def test_shortcuts_add_what_was_read_before_the_sign(cnn: tuple[Network, Task]) -> None:
    network, task = cnn
    plan = Binarize(shortcuts=True).plan(network, task)
    assert plan.edits[0]["shortcuts"] == ["conv2d_1", "conv2d_2"]
    binary = carry_out(network, plan)
    by_name = {str(node.meta.get("layer")): node for node in binary.calls()}
    read = {
        node.meta["layer"]: source.args[0]
        for node in binary.calls()
        if node.target in LAYERS
        and isinstance(source := node.args[0], fx.Node)
        and source.target is SIGN
    }
    for layer, norm in (("conv2", "bn2"), ("conv3", "bn3")):
        end = by_name[norm]  # the last node of that name: the sum
        assert end.target is torch.ops.aten.add.Tensor
        assert end.args[1] is read[layer]


def test_two_stages_end_where_one_does(cnn: tuple[Network, Task]) -> None:
    network, task = cnn
    tune = Tune(TuneOptions(epochs=1, distill=0.5), recalibration_samples=0)
    first = tune(Binarize(weights=False, shortcuts=True)(network, task), task)
    second = Binarize(shortcuts=True).plan(first, task)
    assert [one["edit"] for one in second.edits] == ["binarize", "fake_quantize"]
    at_once = Binarize(shortcuts=True)(network, task)
    staged = carry_out(first, second)
    assert [n.target for n in staged.calls()] == [n.target for n in at_once.calls()]
    assert Binarize(shortcuts=True).plan(staged, task).edits == ()


def test_plan_survives_json_and_a_network_is_restored(
    cnn: tuple[Network, Task], tmp_path: Path
) -> None:
    network, task = cnn
    plan = Binarize(learned_sign=True).plan(network, task)
    again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again == plan
    binary = carry_out(network, again)
    save(binary, tmp_path)
    x = task.train[1][0]  # type: ignore[index]
    assert torch.equal(restore(tmp_path, Cnn(), task.example)(x), binary(x))


def test_one_channel_and_one_bit_are_refused() -> None:
    class Gray(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.linear = nn.Conv2d(1, 4, 3), nn.Linear(4 * 6 * 6, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.conv(x).flatten(1))

    task = task_of(Gray(), 1, 8, 8)
    network = capture(task.model, task.example)
    words = r"layer conv, which reads a single channel: .* 9 signs.*ends=8, or skip=\('conv',\)"
    with pytest.raises(InputError, match=words):
        Binarize(ends=1).plan(network, task)
    assert Binarize(ends=1, skip=("conv",)).plan(network, task).edits


@pytest.mark.parametrize(
    ("options", "words"),
    [({"weights": False, "activations": False}, "nothing to do"), ({"ends": 9}, "1 to 8 bits"),
     ({"activations": False, "shortcuts": True}, "shortcuts needs binary activations")],
)  # fmt: skip
def test_wrong_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Binarize(**options)
