"""Saturation: what a file computes on integers is the same on every x86 processor, by proof."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from without_vnni import processor, run

from penjing.arith.quantizer import quantized, weight_scales
from penjing.arith.saturation import most_in_a_pair, pair_sums, saturates, scales_that_fit, trimmed
from penjing.measure.parity import departs, parity
from penjing.network import Network, capture
from penjing.network.analysis.saturation import saturating
from penjing.network.edits.overflow import fix_overflow, without_overflow
from penjing.network.graph.qparams import weight_qparams
from penjing.passes import CorrectBias, Gptq, MixedPrecision, Quantize, Reconstruct, Ternarize
from penjing.processor import Processor
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.runtimes.onnx.saturation import saturating as saturating_nodes
from penjing.runtimes.registry import ENTRIES, find_runtime
from penjing.tasks.task import Task
from penjing.trials.evaluation.saturation import warning
from tests.pairs import layer_task, pairwise


def _weights(seed: int) -> Tensor:
    """Of all kinds: even, a few large ones, of one sign, single, constant."""
    draw = torch.Generator().manual_seed(seed)
    count = int(torch.randint(1, 60, (), generator=draw))
    weight = torch.randn(8, count, generator=draw) * torch.rand(8, 1, generator=draw).exp()
    kind = seed % 4
    if kind == 1:
        weight = weight.sign() * weight.abs().pow(0.2)
    elif kind == 2:
        weight = weight.abs()
    elif kind == 3:
        weight = torch.where(weight.abs() > 1, 10 * weight, weight).round()
    return weight


@pytest.mark.parametrize("top", [255, 254, 200, 128, 127])
def test_scales_grow_just_so_far_that_no_pair_leaves_16_bits(top: int) -> None:
    grown = 0
    for seed in range(200):
        weight = _weights(seed)
        scales = weight_scales(weight)
        found = scales_that_fit(weight, scales, -127, 127, top)
        codes = quantized(weight, found, -127, 127)
        assert not saturates(codes, top).any()
        more = found > scales
        assert torch.equal(found[~more], scales[~more])
        less = torch.where(more, torch.maximum(found * (1 - 1e-5), scales), scales)
        assert saturates(quantized(weight, less, -127, 127), top)[more].all()
        grown += int(more.sum())
    assert (grown > 0) == (top > 128)  # two of 127 fit for values of seven bits


def test_the_two_largest_of_one_sign_are_the_worst_neighbours() -> None:
    draw = torch.Generator().manual_seed(0)
    for count, top in itertools.product((1, 2, 3, 7), (255, 100)):
        codes = torch.randint(-128, 128, (50, count), generator=draw, dtype=torch.int8)
        rows = codes.int()
        padded = torch.cat([rows, torch.zeros(50, 1, dtype=torch.int32)], 1)
        pairs = padded[:, :, None] + padded[:, None, :]
        pairs[:, range(count + 1), range(count + 1)] = 0  # none is its own neighbour
        # the worst values are 0 where a weight has the other sign
        worst = torch.maximum(pairs.flatten(1).abs().amax(1), rows.abs().amax(1))
        both = torch.stack([rows.clamp_min(0), (-rows).clamp_min(0)])
        assert (pair_sums(codes) <= both.sum(-1).amax(0)).all()
        assert (pair_sums(codes) >= worst).all()
        fits = pair_sums(codes) <= most_in_a_pair(top)
        order = torch.stack([torch.randperm(count, generator=draw) for _ in range(50)])
        for _ in range(20):
            values = torch.randint(0, top + 1, (50, count), generator=draw)
            exact = (values * rows).sum(1)
            mixed = values.gather(1, order), rows.gather(1, order)
            assert torch.equal(pairwise(*mixed)[fits], exact[fits])


def test_codes_are_trimmed_as_little_as_can_be() -> None:
    draw = torch.Generator().manual_seed(0)
    for top in (255, 200):
        codes = torch.randint(-127, 128, (60, 4), generator=draw)
        found = trimmed(codes, top)
        assert not saturates(found, top).any()
        fits = ~saturates(codes, top)
        assert torch.equal(found[fits], codes[fits].int())
        assert torch.equal(trimmed(found, top), found)
        moved = (codes - found).square().sum(1)
        every = torch.cartesian_prod(*[torch.arange(-127, 128, 14)] * 4)
        proof = every[~saturates(every, top)]
        nearest = (codes[:, None] - proof[None]).square().sum(-1).amin(1)
        assert (moved <= nearest).all()


def test_scales_that_are_one_stay_one() -> None:
    weight = torch.tensor([[127.0, 127.0], [1.0, 1.0]])
    found = scales_that_fit(weight, torch.ones(2), -127, 127, 255)
    assert found[0] == found[1] > 1


KINDS: dict[str, tuple[nn.Module, tuple[int, ...], bool]] = {
    "convolution": (nn.Conv2d(3, 8, 3, padding=1), (3, 8, 8), True),
    "in groups": (nn.Conv2d(8, 8, 3, groups=2), (8, 6, 6), True),
    "depthwise": (nn.Conv2d(8, 8, 3, groups=8), (8, 6, 6), False),
    "two to a channel": (nn.Conv2d(8, 16, 3, groups=8), (8, 6, 6), True),
    "one dimension": (nn.Conv1d(4, 8, 3), (4, 12), True),
    "linear": (nn.Linear(20, 6), (20,), True),
    "a row of tokens": (nn.Linear(20, 6), (5, 20), True),
}
"""By name: a layer, the shape of a sample, and whether its products have neighbours to add to."""


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("options", [{}, {"scales": "tensor"}, {"symmetric": True}])
def test_every_kind_of_layer_is_mended(name: str, options: dict[str, str]) -> None:
    layer, shape, adds = KINDS[name]
    network, task = _captured(layer, shape)
    before = Quantize(outputs=True, overflow_fix=False, **options)(network, task)  # type: ignore[arg-type]
    assert bool(saturating(before)) is adds
    plan = Quantize(outputs=True, **options).plan(network, task)  # type: ignore[arg-type]
    after = Quantize(outputs=True, **options).apply(network, plan, task)  # type: ignore[arg-type]
    assert saturating(after) == []
    assert without_overflow(after) is after
    assert any("overflow fix: weight scales enlarged" in one for one in plan.notes) is adds
    x = task.train[0][0]  # type: ignore[index]
    with torch.no_grad():
        error = [float((one(x) - network(x)).square().mean()) for one in (before, after)]
    assert error[1] <= 5 * error[0] + 1e-9  # a bit of the weights, at most


def _captured(layer: nn.Module, shape: tuple[int, ...]) -> tuple[Network, Task]:
    task = layer_task(layer, shape)
    return capture(task.model, task.example), task


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7])
def test_few_bits_cannot_leave_16(bits: int) -> None:
    network, task = _captured(nn.Conv2d(3, 8, 3), (3, 8, 8))
    assert saturating(Quantize(weights=bits, ends=bits, overflow_fix=False)(network, task)) == []


@pytest.mark.parametrize(
    "rounding", [(Quantize(), Gptq()), (MixedPrecision(bytes=0.25),), (Ternarize(),)]
)
def test_every_pass_and_every_lowering_is_mended(rounding: tuple[object, ...]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten())
    task = layer_task(nn.Sequential(model, nn.Linear(128, 4)), (3, 8, 8))
    network = capture(task.model, task.example)
    for one in rounding:
        network = one(network, task)  # type: ignore[operator]
    with torch.no_grad():  # as training may leave it
        for qparams in weight_qparams(network).values():
            network.tensor(qparams.scale).div_(1.5)
    assert saturating(OnnxRuntime().as_computed(network)) == []
    fix_overflow(network)
    assert saturating(network) == []


@pytest.mark.parametrize("refined", [Gptq(), Reconstruct(steps=60), CorrectBias()])
@pytest.mark.parametrize("weights", [8, 4])
def test_what_was_rounded_with_care_is_not_rounded_anew(
    refined: Gptq | Reconstruct | CorrectBias, weights: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.Flatten())
    task = layer_task(nn.Sequential(model, nn.Linear(128, 4)), (3, 8, 8))
    network = refined(Quantize(weights=weights)(capture(task.model, task.example), task), task)
    runtime = OnnxRuntime()
    artifact = runtime.lower(network, tmp_path / "model.onnx")
    assert runtime.saturating(artifact) == []
    found = parity(network, runtime.load(artifact), task.train)
    assert departs(found) == ""
    computed = runtime.as_computed(network)
    for qparams in weight_qparams(network).values():
        weight, scale = (network.tensor(name) for name in (qparams.source_name, qparams.scale))
        moved = computed.tensor(qparams.source_name) != weight
        assert torch.equal(computed.tensor(qparams.scale), scale)
        assert int(moved.sum()) <= 2 * len(weight)  # the largest, of a channel


@pytest.fixture(scope="module")
def mixed() -> tuple[Network, Task]:
    """All kinds of layers in one network, whose weights are the worst case, and signed inputs."""
    task = layer_task(Mixed(), (3, 8, 8), signed=True)
    return capture(task.model, task.example), task


@pytest.fixture(params=["onnxruntime", "openvino"])
def emulated(request: pytest.FixtureRequest) -> str:
    """The name of a runtime that is here, where a processor without VNNI is or can be emulated."""
    name = str(request.param)
    if processor() is None:
        pytest.skip("this processor has VNNI, and qemu-x86_64-static isn't installed")
    if ENTRIES[name].missing:
        pytest.skip(f"{name} isn't installed")
    return name


def test_a_file_decides_alike_without_vnni(
    mixed: tuple[Network, Task], emulated: str, tmp_path: Path
) -> None:
    """On such a processor, or one that is emulated; the file without the fix shows that it is."""
    network, task = mixed
    x = torch.cat([inputs for inputs, _ in task.train])
    apart = {}
    for fix in (True, False):
        maker = find_runtime(emulated)
        maker.overflows = fix  # type: ignore[misc]
        quantized = Quantize(outputs=True, overflow_fix=fix)(network, task)
        path = maker.lower(quantized, tmp_path / f"{fix}{maker.ending}").path
        if fix:
            assert maker.saturating(maker.artifact(path)) == []
        ((found,),) = run([path], maker.name, {"0": x.numpy()})
        with torch.no_grad():
            wanted = quantized(x).numpy()
        apart[fix] = np.sqrt(np.square(found - wanted).mean() / np.square(wanted).mean())
    assert apart[True] < 0.02
    assert apart[False] > 5 * apart[True]


def test_what_was_trimmed_decides_alike_without_vnni(
    mixed: tuple[Network, Task], emulated: str, tmp_path: Path
) -> None:
    network, task = mixed
    refined = Gptq()(Quantize(outputs=True)(network, task), task)
    with torch.no_grad():  # as training may leave it, far beyond 16 bits
        for qparams in weight_qparams(refined).values():
            refined.tensor(qparams.scale).div_(1.5)
    runtime = find_runtime(emulated)
    path = runtime.lower(refined, tmp_path / f"refined{runtime.ending}").path
    x = torch.cat([inputs for inputs, _ in task.train]).numpy()
    ((there,),) = run([path], emulated, {"0": x})
    here = runtime.load(runtime.artifact(path)).run(x)
    np.testing.assert_allclose(there, here, atol=1e-6 * float(np.abs(here).max()))


@pytest.mark.parametrize("kind", ["Conv", "Gemm", "MatMul", "in groups", "depthwise", "unsigned"])
def test_a_file_of_another_tool_is_judged_by_its_bytes(kind: str) -> None:
    codes = np.full((4, 2, 3, 3) if kind != "Gemm" else (4, 18), 127, np.int8)
    codes[1:] //= 2  # of the first channel alone do two leave 16 bits
    if kind == "MatMul":
        codes = codes.reshape(4, 18).T.copy()
    model = _of_one_layer(kind, codes.astype(np.uint8) if kind == "unsigned" else codes)
    found = saturating_nodes(model)
    if kind in ("depthwise", "unsigned"):
        assert found == []
    else:
        assert [(one.layer, one.channels, one.of) for one in found] == [("layer", 1, 4)]


def _of_one_layer(kind: str, codes: Any) -> onnx.ModelProto:
    """A QDQ file: codes of a value, dequantized, and the layer on dequantized weights."""
    operator = kind if kind in ("Gemm", "MatMul") else "Conv"
    if kind == "depthwise":
        codes = codes[:, :1]
    options: dict[str, Any] = {"transB": 1} if operator == "Gemm" else {}
    if operator == "Conv":
        options["group"] = {"in groups": 2, "depthwise": 4}.get(kind, 1)
    make, node = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    weights = onnx.numpy_helper.from_array(codes, "w")
    scales = [onnx.numpy_helper.from_array(np.array(0.1, np.float32), name) for name in ("s", "t")]
    nodes = [
        node("DequantizeLinear", ["x", "s"], ["real"]),
        node("DequantizeLinear", ["w", "t"], ["weight"]),
        node(operator, ["real", "weight"], ["y"], name="layer/Conv", **options),
    ]
    ends = [make("x", onnx.TensorProto.UINT8, None)], [make("y", onnx.TensorProto.FLOAT, None)]
    graph = onnx.helper.make_graph(nodes, "one", *ends, initializer=[weights, *scales])
    return onnx.helper.make_model(graph)


def test_nobody_is_warned_of_what_never_happens() -> None:
    with_vnni = Processor("New", "x86_64", ("avx2", "avx_vnni"))
    without, arm = Processor("Old", "x86_64", ("avx2",)), Processor("Arm", "aarch64", ("asimddp",))
    assert without.adds_in_16_bits
    assert not with_vnni.adds_in_16_bits
    assert not arm.adds_in_16_bits
    assert warning("a.onnx", "never", without) == ""
    told = warning("a.onnx", ["conv1", "conv2"], without)
    assert "Old (avx2) has no VNNI, so sums of two products in conv1, conv2 can overflow" in told
    elsewhere = warning("a.onnx", ["conv1", "conv2"], with_vnni)
    assert "conv1, conv2" in elsewhere
    assert "x86 processors without VNNI" in elsewhere


class Mixed(nn.Module):
    """A convolution, one in groups, a depthwise one, a pointwise one and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.grouped = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, groups=2)
        self.depthwise, self.pointwise = nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 16, 1)
        self.linear = nn.Linear(256, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.grouped(torch.relu(self.first(x))))
        x = torch.relu(self.pointwise(torch.relu(self.depthwise(x))))
        return self.linear(x.flatten(1))
