"""Ternarize: codes, scales and gradients by hand, the plan as data, the file that is small."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from penjing.arith.ternary import TERNARIZE, ternarize, ternary_codes, ternary_scales
from penjing.contract import Plan
from penjing.errors import InputError
from penjing.measure.parity import parity
from penjing.network import Network, capture, carry_out, restore, save
from penjing.network.lowering.integers import with_integers
from penjing.passes import Binarize, Ternarize, Tune
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task
from penjing.tune.options import TuneOptions


class Small(nn.Module):
    """Convolutions with batch norms of either sign, a sum, a linear layer in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.conv3, self.bn3 = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.fc1, self.fc2 = nn.Linear(16, 20), nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        x = (self.bn3(self.conv3(self.bn2(self.conv2(x)).relu())) + x).relu()
        return self.fc2(self.fc1(x.mean((2, 3))).relu())


@pytest.fixture(scope="module")
def task() -> Task:
    torch.manual_seed(0)
    model = Small()
    for norm in (model.bn1, model.bn2, model.bn3):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        nn.init.normal_(norm.get_buffer("running_mean"))
        nn.init.uniform_(norm.get_buffer("running_var"), 0.5, 2.0)
    data = Arrays(torch.randn(64, 3, 8, 8), torch.arange(64) % 5, batch_size=32)
    return Task(model.eval(), torch.randn(2, 3, 8, 8), data, data)


@pytest.fixture(scope="module")
def network(task: Task) -> Network:
    return capture(task.model, task.example)


def weights(network: Network) -> dict[str, Any]:
    """Of each layer with a ternary weight, by name, that weight as it is computed."""
    found = {}
    for node in network.calls():
        if node.target is TERNARIZE:
            names = [str(one.target) for one in node.args[:3]]  # type: ignore[union-attr]
            weight, positive, negative = (network.tensor(name) for name in names)
            factor = float(node.args[3])  # type: ignore[arg-type]
            found[names[0]] = ternarize(weight, positive, negative, factor)
    return found


WEIGHT = torch.tensor([[0.1, -0.9, 0.5, -0.5], [1.0, 1.0, -1.0, -5.0]])  # mean |w| 0.5 and 2


def test_twn_by_hand() -> None:
    codes = ternary_codes(WEIGHT, 0.7)  # limits 0.35 and 1.4
    assert codes.tolist() == [[0, -1, 1, -1], [0, 0, 0, -1]]
    torch.testing.assert_close(ternary_scales(WEIGHT, codes), torch.tensor([1.9 / 3, 5.0]))
    torch.testing.assert_close(ternary_scales(WEIGHT, codes, 1), torch.tensor([0.5, 2.0]))
    torch.testing.assert_close(ternary_scales(WEIGHT, codes, -1), torch.tensor([0.7, 5.0]))


def test_one_scale_is_trained_as_a_step_size() -> None:
    weight, scale = WEIGHT.clone().requires_grad_(), torch.tensor([2.0, 3.0], requires_grad=True)
    found = ternarize(weight, scale, scale, 0.7)
    assert found.tolist() == [[0, -2, 2, -2], [0, 0, 0, -3]]
    gradient = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    torch.autograd.backward(found, gradient)
    assert weight.grad is not None
    assert scale.grad is not None
    assert torch.equal(weight.grad, gradient)
    assert scale.grad.tolist() == [-2 + 3 - 4, -8]


def test_two_scales_have_the_gradients_of_ttq() -> None:
    weight = WEIGHT.clone().requires_grad_()
    positive = torch.tensor([2.0, 3.0], requires_grad=True)
    negative = torch.tensor([0.5, 4.0], requires_grad=True)
    found = ternarize(weight, positive, negative, 0.7)
    assert found.tolist() == [[0, -0.5, 2, -0.5], [0, 0, 0, -4]]
    torch.autograd.backward(found, torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]))
    assert weight.grad is not None
    assert positive.grad is not None
    assert negative.grad is not None
    assert weight.grad.tolist() == [[1, 1, 6, 2], [5, 6, 7, 32]]
    assert positive.grad.tolist() == [3, 0]
    assert negative.grad.tolist() == [-6, -8]


@pytest.mark.parametrize("scales", ["one", "two"])
def test_weights_have_three_values_to_a_channel(network: Network, task: Task, scales: Any) -> None:
    ternary = Ternarize(scales)(network, task)
    found = weights(ternary)
    assert set(found) == {"conv2.weight", "conv3.weight", "fc1.weight"}
    for weight in found.values():
        for row in weight.flatten(1):
            values = row.unique()
            assert len(values) == 3
            assert 0 in values
            if scales == "one":
                assert values[0] == -values[2]


@pytest.mark.parametrize(
    "options",
    [{}, {"scales": "two"}, {"activations": 8}, {"scales": "two", "activations": 4},
     {"ends": None}, {"threshold": 0.0}],
)  # fmt: skip
def test_the_file_gives_the_same_numbers_and_training_reaches_all(
    network: Network, task: Task, options: dict[str, Any], tmp_path: Path
) -> None:
    ternary = Ternarize(**options)(network, task)
    session = OnnxRuntime().load(OnnxRuntime().lower(ternary, tmp_path / "m.onnx"))
    found = parity(ternary, session, task.test)
    # a value on the edge between two integers may go either way
    assert found.mean_difference < (1e-3 if "activations" in options else 1e-5)
    ternary.train()(torch.randn(8, 3, 8, 8)).square().sum().backward()
    for name, one in ternary.named_parameters():
        assert one.grad is not None, name
        assert one.grad.any(), name


def test_trained_norms_are_folded_into_the_scales(
    network: Network, task: Task, tmp_path: Path
) -> None:
    """Stage by stage: train with batch norms, then round the values, then train on."""
    tune = Tune(TuneOptions(epochs=1, distill=0.5))
    first = tune(Ternarize()(network, task), task)
    codes = {
        name: ternary_codes(first.tensor(name), 0.7) for name in ("conv2.weight", "conv3.weight")
    }
    second = Ternarize(activations=8).plan(first, task)
    kinds = [one["edit"] for one in second.edits]
    assert kinds == ["fold_batch_norm", "pool_means", "fake_quantize", "fix_overflow"]
    integers = carry_out(first, second)
    assert not any("batch_norm" in str(node.target) for node in integers.calls())
    for name, one in codes.items():
        assert torch.equal(ternary_codes(integers.tensor(name), 0.7), one)
    x = task.example
    torch.testing.assert_close(integers(x), first(x), rtol=0.2, atol=0.2)
    last = Tune(TuneOptions(epochs=1, distill=0.5), recalibration_samples=0)(integers, task)
    session = OnnxRuntime().load(OnnxRuntime().lower(last, tmp_path / "m.onnx"))
    assert parity(last, session, task.test).mean_difference < 1e-2
    assert Ternarize(activations=8).plan(last, task).edits == ()


def test_integers_are_ternary_codes_and_int32_biases(network: Network, task: Task) -> None:
    integers = with_integers(Ternarize(activations=8)(network, task))
    tensors = dict(integers.named_buffers())
    for layer in ("conv2", "conv3", "fc1"):
        assert tensors[f"{layer}.weight"].dtype is torch.int8
        assert torch.unique(tensors[f"{layer}.weight"]).tolist() == [-1, 0, 1]
        assert tensors[f"{layer}.bias"].dtype is torch.int32


@pytest.mark.parametrize("scales", ["one", "two"])
def test_the_file_holds_five_weights_to_a_byte(
    network: Network, task: Task, scales: Any, tmp_path: Path
) -> None:
    OnnxRuntime().lower(Ternarize(scales)(network, task), tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    sizes = [int(np.prod(one.dims)) for one in model.graph.initializer if one.data_type == 2]
    assert sorted(sizes)[-2:] == [-(-16 * 16 * 9 // 5)] * 2


def test_plan_survives_json_and_a_network_is_restored(
    network: Network, task: Task, tmp_path: Path
) -> None:
    plan = Ternarize("two", activations=8).plan(network, task)
    again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again == plan
    ternary = carry_out(network, again)
    save(ternary, tmp_path)
    x = torch.randn(4, 3, 8, 8)
    assert torch.equal(restore(tmp_path, Small(), task.example)(x), ternary(x))


def test_no_layers_are_an_empty_plan(network: Network, task: Task) -> None:
    everything = ("conv1", "conv2", "conv3", "fc1", "fc2")
    plan = Ternarize(activations=8, skip=everything).plan(network, task)
    assert plan.edits == ()
    assert [one.what for one in plan.left_alone] == list(everything)
    ternary = Ternarize()(network, task)
    assert Ternarize().plan(ternary, task).edits == ()

    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.shift

    bare = Task(Bare(), torch.zeros(2, 3), [], [])
    assert Binarize().plan(capture(bare.model, bare.example), bare).edits == ()
    assert Ternarize().plan(capture(bare.model, bare.example), bare).edits == ()


@pytest.mark.parametrize(
    ("options", "words"),
    [({"scales": "three"}, "'one' or 'two'"), ({"threshold": 2.5}, "threshold"),
     ({"ends": 1}, "2 to 8 bits"), ({"activations": 9}, "2 to 8 bits"),
     ({"samples": 1}, "samples")],
)  # fmt: skip
def test_wrong_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Ternarize(**options)


def test_skip_must_name_a_layer(network: Network, task: Task) -> None:
    with pytest.raises(InputError, match=r"skip names 'conv9'.*conv1"):
        Ternarize(skip=("conv9",)).plan(network, task)
