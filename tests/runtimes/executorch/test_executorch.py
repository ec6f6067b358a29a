"""ExecuTorch: what is lowered computes as the network does, all of it in XNNPACK where it can."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from penjing.errors import InputError
from penjing.network import capture
from penjing.network.graph.qparams import weight_qparams
from penjing.network.lowering.form import Form
from penjing.network.lowering.integers import with_integers
from penjing.passes.rounding.quantize import Quantize
from penjing.targets import find_target
from penjing.tasks.task import Task
from tests.runtime_networks import (
    Maker,
    assert_damage_is_refused,
    assert_zeros_fit,
    first,
    gap,
    made_once,
    network_of,
)

pytest.importorskip("executorch", reason="needs executorch; pip install 'penjing[executorch]'")
from penjing.runtimes.executorch.runtime import ExecuTorch
from penjing.runtimes.executorch.xnnpack_form import for_xnnpack

pytestmark = pytest.mark.filterwarnings("ignore")  # of ExecuTorch's own imports and exports


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return made_once(ExecuTorch(), tmp_path_factory.mktemp("files"))


@pytest.mark.parametrize("name", ["small", "linear", "token", "pair to tuple"])
def test_floats_are_the_networks(name: str, made: Maker) -> None:
    network, inputs, artifact = made(name, False)
    session = ExecuTorch().load(artifact)
    assert gap(network, session, first(inputs, 3)) < 1e-4
    assert_zeros_fit(session)


@pytest.mark.parametrize("name", ["small", "signal", "token", "pair to dict"])
def test_integers_are_computed_in_integers(name: str, made: Maker) -> None:
    network, inputs, artifact = made(name, True)
    assert gap(network, ExecuTorch().load(artifact), inputs) < 1e-4
    run = [one.operator for one in ExecuTorch().placement(artifact) if one.unit == "xnnpack"]
    layers = [one.split()[1] for one in run if one.startswith(("Conv2d", "FullyConnected"))]
    subsampling = name == "small"
    assert layers == ["qint8"] * (len(weight_qparams(network)) + subsampling)


def test_what_xnnpack_takes_and_what_is_left(made: Maker) -> None:
    found = ExecuTorch().placement(made("small", True)[2])
    assert {one.unit for one in found} == {"xnnpack"}
    found = ExecuTorch().placement(made("token", False)[2])
    left = [one for one in found if one.unit == "cpu"]
    kernels = {one.operator for one in left}
    assert kernels == {"aten::expand_copy.out", "aten::native_layer_norm.out", "aten::mean.out"}
    assert all(one.why for one in left)


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("name", ["small", "token"])
def test_the_form_for_xnnpack_changes_no_number(name: str, quantized: bool, made: Maker) -> None:
    network, inputs, _ = made(name, quantized)
    integers = with_integers(network, Form(torch.int8))
    form = for_xnnpack(integers)
    with torch.no_grad():
        assert torch.allclose(form(inputs), integers(inputs), rtol=1e-6, atol=1e-6)


class Clipped(nn.Module):
    """A ReLU6, written in one way or another, between convolutions."""

    def __init__(self, write: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.one, self.other, self.write = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 5, 6), write

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.other(self.write(self.one(x))).flatten(1)


@pytest.mark.parametrize(
    "write",
    [nn.functional.relu6, lambda x: x.clamp(0, 6), lambda x: x.clamp(min=0)],
    ids=["relu6", "clamp", "clamp from below"],
)
def test_an_activation_is_part_of_its_layer_however_it_is_written(
    write: Callable[[torch.Tensor], torch.Tensor], tmp_path: Path
) -> None:
    torch.manual_seed(0)  # in some draws a value lies on the edge between two integers
    batches = [(torch.randn(16, 3, 8, 8) * 4, torch.arange(16) % 5)]
    task = Task(Clipped(write).eval(), batches[0][0][:2], batches, batches)
    network = Quantize(samples=16, outputs=True)(capture(task.model, task.example), task)
    artifact = ExecuTorch().lower(network, tmp_path / "a.pte")
    kinds = [one.operator for one in ExecuTorch().placement(artifact)]
    assert [one for one in kinds if one.startswith("Conv2d")] == ["Conv2d qint8"] * 2
    assert not [one for one in kinds if one.startswith("Clamp")]
    assert gap(network, ExecuTorch().load(artifact), batches[0][0]) < 1e-4


class Joined(nn.Module):
    """Two convolutions of unlike ranges, whose results are put together."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.last = nn.Conv2d(8, 5, 6)
        nn.init.normal_(self.other.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.cat([self.one(x), self.other(x)], 1)).flatten(1)


def test_parts_with_unlike_scales_and_scales_below_zero(tmp_path: Path) -> None:
    """XNNPACK loads neither as it stands; of 4 bits, the scale has the sign that loses least."""
    torch.manual_seed(0)
    batches = [(torch.randn(16, 3, 8, 8), torch.arange(16) % 2) for _ in range(4)]
    task = Task(Joined().eval(), batches[0][0][:2], batches, batches)
    network = Quantize(weights=4, ends=4)(capture(task.model, task.example), task)
    assert any((network.tensor(one.scale) < 0).any() for one in weight_qparams(network).values())
    artifact = ExecuTorch().lower(network, tmp_path / "a.pte")
    assert gap(network, ExecuTorch().load(artifact), batches[0][0]) < 1e-4
    operators = {one.operator for one in ExecuTorch().placement(artifact)}
    assert {"Conv2d qint8", "Concatenate2 qint8"} <= operators


def test_weights_alone_in_integers_are_written_as_floats(tmp_path: Path) -> None:
    torch.manual_seed(0)
    batches = [(torch.randn(16, 64), torch.arange(16) % 2) for _ in range(4)]
    task = Task(nn.Linear(64, 64), batches[0][0][:2], batches, batches)
    network = Quantize(activations=None)(capture(task.model, task.example), task)
    artifact = ExecuTorch().lower(network, tmp_path / "a.pte")
    assert gap(network, ExecuTorch().load(artifact), batches[0][0]) < 1e-5
    assert ExecuTorch().weight_bytes(artifact) == 4 * (64 * 64 + 64)


def test_a_damaged_file_is_refused(made: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_damage_is_refused(ExecuTorch(), made("linear", False)[2], monkeypatch)


def test_an_example_of_strides_that_no_file_has_is_taken(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.from_numpy(np.ones((2, 8, 8), dtype="float32")[:, None])  # the new axis has stride 0
    network = capture(nn.Conv2d(1, 2, 3).eval(), x)
    artifact = ExecuTorch().lower(network, tmp_path / "model.pte")
    assert gap(network, ExecuTorch().load(artifact), x) < 1e-5


def test_a_file_that_is_no_program_is_one_line() -> None:
    with pytest.raises(InputError, match="ExecuTorch can't load this file: ") as error:
        ExecuTorch().open([b"not a program" * 9])
    assert "\n" not in str(error.value)


def test_inputs_of_another_shape_are_one_line(made: Maker) -> None:
    session = ExecuTorch().load(made("linear", False)[2])
    with pytest.raises(InputError, match=r"inputs of \(1, 7\)") as error:
        session.run(torch.zeros(2, 7).numpy())
    assert "\n" not in str(error.value)


def test_another_number_of_threads_is_refused(made: Maker) -> None:
    artifact = made("linear", False)[2]
    ExecuTorch().load(artifact)
    with pytest.raises(InputError, match="it has 1, wanted 2; start another process"):
        ExecuTorch().load(artifact, threads=2)


class Mean(nn.Module):
    """One row for the whole batch."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x).mean(0)


def test_what_stands_against_it() -> None:
    found = ExecuTorch().problems(capture(Mean().eval(), torch.randn(2, 3)), find_target("cpu"))
    assert "has no entry for each of 2 samples" in found[0]
    fine, _ = network_of("linear", quantized=True)
    assert not ExecuTorch().problems(fine, find_target("cpu"))
