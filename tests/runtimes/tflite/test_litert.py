"""LiteRT: a `.tflite` file holds the quantizer's own integers, and runs as the network does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from penjing.contract import Artifact
from penjing.errors import InputError, UnsafeError
from penjing.measure.parity import parity
from penjing.network import Network, capture
from penjing.network.lowering.integers import with_integers
from penjing.passes.rounding.quantize import Quantize
from penjing.runtimes.registry import ENTRIES
from penjing.targets import find_target
from penjing.tasks.task import Task
from tests.passes.rounding.test_quantize import Small
from tests.runtimes.onnx.test_onnxruntime import Two

if ENTRIES["litert"].missing:
    pytest.skip(f"needs {', '.join(ENTRIES['litert'].missing)}", allow_module_level=True)

from penjing.quiet import quiet

with quiet():
    from penjing.runtimes.tflite import file as tflite_file
    from penjing.runtimes.tflite.runtime import LiteRt
    from penjing.runtimes.tflite.session import LiteRtSession

Lowered = tuple[Network, Artifact, Task]


def _task(model: nn.Module, *sizes: tuple[int, ...]) -> Task:
    """Random batches of so many inputs; two or more go by name."""
    torch.manual_seed(0)
    made = [[torch.randn(16, *one) for one in sizes] for _ in range(4)]
    names = ("left", "right")
    inputs = [dict(zip(names, one, strict=True)) if len(one) > 1 else one[0] for one in made]
    batches = [(one, torch.arange(16) % 5) for one in inputs]
    example = torch.utils._pytree.tree_map(lambda x: x[:2], inputs[0])
    return Task(model.eval(), example, batches, batches)


@pytest.fixture(scope="module")
def small() -> Task:
    torch.manual_seed(0)
    return _task(Small(), (3, 8, 8))


@pytest.fixture(scope="module")
def fp32(small: Task, tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    network = capture(small.model, small.example)
    path = tmp_path_factory.mktemp("fp32") / "a.tflite"
    return network, LiteRt().lower(network, path), small


@pytest.fixture(scope="module")
def int8(small: Task, tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    quantize = Quantize(samples=64, outputs=True)
    network = quantize(capture(small.model, small.example), small)
    path = tmp_path_factory.mktemp("int8") / "a.tflite"
    return network, LiteRt().lower(network, path), small


def test_fp32_gives_the_networks_numbers_for_any_batch(fp32: Lowered) -> None:
    network, artifact, task = fp32
    session = LiteRt().load(artifact)
    assert parity(network, session, task.test).max_difference < 1e-4
    for batch in (1, 3):
        x = torch.randn(batch, 3, 8, 8)
        assert np.allclose(session.run(x.numpy()), network(x).detach().numpy(), atol=1e-4)
    (takes,) = session.inputs
    assert (takes.name, takes.shape, takes.dtype) == ("x", (1, 3, 8, 8), "float32")


def test_int8_goes_in_and_out_and_decides_as_the_network(int8: Lowered) -> None:
    network, artifact, task = int8
    session = LiteRt().load(artifact)
    assert isinstance(session, LiteRtSession)
    assert {one["dtype"] for one in (*session.file.takes, *session.file.gives)} == {np.int8}
    found = parity(network, session, task.test)
    assert found.max_difference <= 2.5 * network.tensor("linear_scale").item()
    assert found.same_decisions is not None
    assert found.same_decisions > 0.95
    assert session.inputs[0].dtype == "float32"


def test_the_file_holds_the_quantizers_integers(int8: Lowered) -> None:
    network, artifact, _ = int8
    codes = with_integers(network).state_dict()
    model = tflite_file.read(artifact.path.read_bytes())
    tensors = {tflite_file.text(one.name): one for one in model.subgraphs[0].tensors}
    for layer in ("conv1", "conv2", "conv3", "linear"):
        for part, kind in (("weight", np.int8), ("bias", np.int32)):
            one = tensors[f"{layer}.{part}"]
            found = model.buffers[one.buffer].data.view(kind).reshape(one.shape)
            want = codes[f"{layer}.{part}"].numpy()
            want = want.transpose(0, 2, 3, 1) if want.ndim == 4 else want
            assert np.array_equal(found, want), (layer, part)
            scales = codes[f"{layer}.{part}_scale"].numpy()
            assert np.allclose(one.quantization.scale, scales, rtol=1e-6)


@pytest.mark.parametrize("form", ["fp32", "int8"])
def test_every_operator_has_a_place_and_layers_their_names(
    form: str, request: pytest.FixtureRequest
) -> None:
    _, artifact, _ = request.getfixturevalue(form)
    found = LiteRt().placement(artifact)
    model = tflite_file.read(artifact.path.read_bytes())
    assert [one.operator for one in found] == [one.kind for one in tflite_file.operators(model)]
    assert {one.unit for one in found} == {"xnnpack"}
    assert len({one.name for one in found}) == len(found)
    layers = {one.name.rpartition("/")[0] for one in found}
    assert {"conv1", "conv2", "conv3", "linear"} <= layers
    kinds = {one.operator for one in found}
    assert not kinds & {"STRIDED_SLICE", "QUANTIZE", "DEQUANTIZE"}
    assert [one.operator for one in found].count("TRANSPOSE") == 1  # the input's, to channel-last


def test_weights_take_a_quarter(fp32: Lowered, int8: Lowered) -> None:
    codes, real = LiteRt().weight_bytes(int8[1]), LiteRt().weight_bytes(fp32[1])
    shortcut = 8 * 16 * 4 + 16 * 4
    assert real == 4 * sum(one.numel() for one in Small().parameters()) - 4 * 2 * 16 + 4 * 8 + (
        shortcut
    )
    assert codes < 0.3 * real


def test_buffers_are_aligned(int8: Lowered) -> None:
    """Kernels read int32 where they please, and the NPU whole lines."""
    content = int8[1].path.read_bytes()
    start = np.frombuffer(content, np.uint8).ctypes.data
    kept = [one.data for one in tflite_file.read(content).buffers if one.data is not None]
    assert len(kept) > 8
    assert all((one.ctypes.data - start) % 16 == 0 for one in kept)


@pytest.mark.parametrize("named", [True, False])
def test_structure_of_inputs_and_outputs(tmp_path: Path, named: bool) -> None:
    task = _task(Two(named), (4,), (4,))
    network = capture(task.model, task.example)
    if named:
        network = Quantize(samples=16, outputs=True)(network, task)
    session = LiteRt().load(LiteRt().lower(network, tmp_path / "a.tflite"))
    assert [one.name for one in session.inputs] == ["left", "right"]
    example: Any = task.test[0][0]  # type: ignore[index]
    found = session.run({name: one.numpy() for name, one in example.items()})
    want = network(**example)
    assert type(found) is type(want)
    pairs = [(found[k], want[k]) for k in want] if named else list(zip(found, want, strict=True))
    assert all(np.allclose(x, y.detach().numpy(), atol=0.05) for x, y in pairs)
    positional = session.run(tuple(one.numpy() for one in example.values()))
    assert np.array_equal(positional["a" if named else 0], found["a" if named else 0])


def test_pools_with_scales_of_their_own_stay_on_integers(tmp_path: Path) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 4, 1),
        nn.AvgPool2d(3, 1), nn.Conv2d(4, 5, 1), nn.Flatten(),
    )  # fmt: skip
    task = _task(model, (3, 8, 8))
    network = Quantize(samples=16, outputs=True)(capture(task.model, task.example), task)
    artifact = LiteRt().lower(network, tmp_path / "a.tflite")
    kinds = [one.operator for one in LiteRt().placement(artifact)]
    assert kinds.count("DEPTHWISE_CONV_2D") == 2
    assert not {"QUANTIZE", "DEQUANTIZE", "PADV2"} & set(kinds)
    found = parity(network, LiteRt().load(artifact), task.test)
    scale = [one for name, one in network.named_parameters() if name.endswith("_scale")][-1]
    assert found.max_difference <= 2.5 * scale.max().item()


class Seen(Exception):
    """The runtime has got the bytes."""


def test_changed_and_cut_files_are_refused_before_the_runtime_sees_them(
    int8: Lowered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    def opened(*_: Any) -> None:
        raise Seen

    content = int8[1].path.read_bytes()
    artifact = replace(int8[1], path=tmp_path / "b.tflite")
    monkeypatch.setattr(LiteRt, "open", opened)
    draw = np.random.default_rng(0)
    for case in range(100):
        changed = bytearray(content)
        place = int(draw.integers(len(content)))
        changed[place] ^= 1 << int(draw.integers(8))
        artifact.path.write_bytes(changed if case % 2 else content[:place])
        with pytest.raises(UnsafeError, match="sha256"):
            LiteRt().load(artifact)
    artifact.path.write_bytes(content)
    with pytest.raises(Seen):
        LiteRt().load(artifact)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\0\0\0\0TFL3"])
def test_what_is_no_tflite_file_is_refused(content: bytes) -> None:
    with pytest.raises(InputError, match=r"isn't a \.tflite file"):
        LiteRt().open([content])


def test_a_part_of_a_file_is_refused(int8: Lowered) -> None:
    content = int8[1].path.read_bytes()
    with pytest.raises(InputError, match=r"\.tflite|LiteRT"):
        LiteRt().open([content[: len(content) // 2]])


class Scaled(nn.Module):
    """A function of numbers that are multiplied first."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.factor, self.function = nn.Parameter(torch.ones(4)), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x * self.factor)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda n, t: Quantize(activations=None, weights=4, group=2, samples=16)(n, t), "by group"),
        (lambda n, t: Quantize(activations=4, samples=16)(n, t), "4 bits"),
        (lambda n, t: capture(Scaled(torch.mean), torch.randn(2, 4)), "each of 2 samples"),
    ],
)
def test_what_it_cannot_take_is_one_line(make: Any, words: str, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    task = _task(model, (4,))
    network = make(capture(task.model, task.example), task)
    with pytest.raises(InputError, match=words):
        LiteRt().lower(network, tmp_path / "a.tflite")
    if "samples" not in words:
        assert any(words in one for one in LiteRt().problems(network, find_target("cpu")))


def test_an_operator_that_the_converter_lacks_is_named(tmp_path: Path) -> None:
    network = capture(Scaled(torch.special.airy_ai), torch.randn(2, 4))
    with pytest.raises(InputError, match=r"converter can't convert.*airy"):
        LiteRt().lower(network, tmp_path / "a.tflite")


class Choosing(nn.Module):
    """Two values with their own scales; one or both are chosen for an operator on floats."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.last, self.how = nn.Conv2d(16 if how in ("cat", "stack") else 8, 4, 1), how

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x).relu()
        y = self.two(x)
        chosen = {
            "cat": lambda: torch.cat([x, y], 1),
            "maximum": lambda: torch.maximum(x, y),
            "minimum": lambda: torch.minimum(x, y),
            "where": lambda: torch.where(y > 0, x, y),
            "stack": lambda: torch.stack([x, y], 1).flatten(1, 2),
        }[self.how]()
        return self.last(torch.exp(chosen / 4)).flatten(1)


def _choosing(how: str, outputs: bool) -> tuple[Network, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(16, 3, 8, 8)
    task = Task(Choosing(how).eval(), x[:2], [(x, torch.zeros(16))], [(x, torch.zeros(16))])
    return Quantize(samples=16, outputs=outputs)(capture(task.model, x[:2]), task), x


@pytest.mark.parametrize("outputs", [True, False])
@pytest.mark.parametrize("how", ["cat", "maximum", "minimum", "where"])
def test_what_is_chosen_from_several_scales_is_not_cut_off(
    how: str, outputs: bool, tmp_path: Path
) -> None:
    """LiteRT's converter would round all of it with the scale of the first."""
    network, x = _choosing(how, outputs)
    session = LiteRt().load(LiteRt().lower(network, tmp_path / "a.tflite"))
    with torch.no_grad():
        want = network(x).numpy()
    assert np.square(session.run(x.numpy()) - want).mean() < 1e-3 * want.var()


def test_a_stack_of_several_scales_is_refused(tmp_path: Path) -> None:
    network, _ = _choosing("stack", True)
    with pytest.raises(InputError, match="would quantize everything that is stacked at test_lit"):
        LiteRt().lower(network, tmp_path / "a.tflite")


class Cells(nn.Module):
    """A head as detectors have it: operators of their own for some of its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 14, 1)
        self.register_buffer("middles", torch.rand(2, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(self.body(x).relu())
        middle, half = self.middles + y[:, :2].tanh(), y[:, 2:4].sigmoid()
        cells = torch.cat([middle - half, middle + half, y[:, 4:].sigmoid()], 1)
        return cells.flatten(2).transpose(1, 2)


def test_operators_that_read_some_channels_of_integers_are_converted(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Cells().eval()
    x = torch.randn(32, 3, 8, 8)
    batches = [(x, torch.zeros(32, 1))]
    task = Task(model, x[:2], batches, batches)
    network = Quantize()(capture(model, x[:2]), task)
    artifact = LiteRt().lower(network, tmp_path / "a.tflite")
    given = LiteRt().load(artifact).run(x.numpy())
    with torch.no_grad():
        assert np.abs(given - network(x).numpy()).max() < 0.05


class Mixed(nn.Module):
    """Rounded and real values that are concatenated, the real ones far beyond the others' range."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layer, self.dim = nn.Conv2d(3, 3, 3, padding=1), dim

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return torch.cat([40 * x.cos(), y, 40 * x.sin()], self.dim)


@pytest.mark.parametrize("dim", [1, -1])
def test_real_values_beside_rounded_ones_stay_real(dim: int, tmp_path: Path) -> None:
    task = _task(Mixed(dim), (3, 8, 8))
    network = Quantize(samples=64, outputs=True)(capture(task.model, task.example), task)
    session = LiteRt().load(LiteRt().lower(network, tmp_path / "a.tflite"))
    x = task.train[0][0]  # type: ignore[index]
    with torch.no_grad():
        apart = np.abs(session.run(x.numpy()) - network(x).numpy())
    assert apart.max() <= 1.1 * network.tensor("conv2d_scale").item()
