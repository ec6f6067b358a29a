"""Fewer bytes for weights alone: float16, and integers with values in float, in every runtime."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from penjing.contract import Artifact, as_arrays
from penjing.errors import InputError
from penjing.network import Network, capture
from penjing.network.graph.qparams import weight_qparams
from penjing.passes import Quantize
from penjing.runtimes.contract import Runtime
from penjing.runtimes.onnx.export import to_onnx
from penjing.runtimes.onnx.fold_weights import fold_when_loaded
from penjing.runtimes.onnx.half import halve
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.runtimes.onnx.session import OnnxSession
from penjing.runtimes.registry import find_runtime, installed
from penjing.targets import find_target, this_machine
from penjing.tasks.task import Task
from penjing.tools import export as exporting
from penjing.tools.export import ExportOptions, export_model
from penjing.trials.evaluation.divergence import first_divergence
from tests.reference_networks import build, self_taught
from tests.runtime_networks import NETWORKS, gap, like

HOLD_HALVES = ("onnxruntime", "openvino", "litert")
REFUSE = ("executorch", "ethosu")
SMALL = ("small", "token", "resnet_a", "vit_fused")
Lower = Callable[[str, str, str], tuple[Network, Any, Artifact]]


@functools.cache
def _task(name: str) -> tuple[Task, Network]:
    torch.manual_seed(0)
    if name in NETWORKS:
        make, example = NETWORKS[name]
        model, inputs = make().eval(), like(example, 16)
    else:
        model, x = build(name)
        inputs = torch.randn(16, *x.shape[1:])
    batches = [(inputs, torch.arange(16) % 2)] * 2
    task = Task(model, inputs[:2], batches, batches)
    return task, capture(task.model, task.example)


@pytest.fixture(scope="module")
def lower(tmp_path_factory: pytest.TempPathFactory) -> Lower:
    """The network, inputs, and its file in that runtime and precision."""

    @functools.cache
    def make(runtime: str, name: str, precision: str) -> tuple[Network, Any, Artifact]:
        if runtime not in installed():
            pytest.skip(f"needs {runtime}")
        task, network = _task(name)
        if precision == "int8-weights":
            network = Quantize(activations=None, samples=16)(network, task)
        one = find_runtime(runtime)
        path = tmp_path_factory.mktemp("files") / f"model{one.ending}"
        floats = "float16" if precision == "float16" else "float32"
        return network, task.train[0][0], one.lower(network, path, floats)  # type: ignore[index]

    return make


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("runtime", HOLD_HALVES)
def test_float16_takes_half_the_bytes_and_gives_the_networks_numbers(
    runtime: str, name: str, lower: Lower
) -> None:
    network, inputs, artifact = lower(runtime, name, "float16")
    one, real = find_runtime(runtime), lower(runtime, name, "float32")[2]
    bytes_of_real, found = (_weight_bytes(one, file) for file in (real, artifact))
    assert 0.5 <= found / bytes_of_real < 0.62
    if bytes_of_real > 100_000:  # in smaller ones the nodes that make weights real count as well
        assert artifact.file_bytes < 0.75 * real.file_bytes
    session = one.load(artifact)
    assert 0 < gap(network, session, inputs) < 1e-2
    _assert_float32(session.run(as_arrays(inputs)))
    assert {one.dtype for one in session.inputs} == {"float32"}


def _weight_bytes(runtime: Runtime, file: Artifact) -> int:
    found = runtime.weight_bytes(file)
    assert found is not None
    return found


def _assert_float32(outputs: Any) -> None:
    assert {one.dtype for one in torch.utils._pytree.tree_leaves(outputs)} == {np.dtype("f4")}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("runtime", HOLD_HALVES)
def test_integer_weights_take_a_quarter_and_are_the_networks_own(
    runtime: str, name: str, lower: Lower
) -> None:
    network, inputs, artifact = lower(runtime, name, "int8-weights")
    one, real = find_runtime(runtime), lower(runtime, name, "float32")[2]
    bytes_of_real, found = (_weight_bytes(one, file) for file in (real, artifact))
    weights = [network.tensor(one.source_name) for one in weight_qparams(network).values()]
    saved = 3 * sum(one.numel() for one in weights)
    channels = sum(len(one) for one in weights)
    assert found <= bytes_of_real - saved + 9 * channels + 64  # a scale, and a zero or a bias
    session = one.load(artifact)
    assert gap(network, session, inputs) < 1e-5  # exactly its weights, and no value rounded
    _assert_float32(session.run(as_arrays(inputs)))


@pytest.mark.parametrize("precision", ["float16", "int8-weights"])
@pytest.mark.parametrize("runtime", HOLD_HALVES)
def test_an_export_keeps_its_decisions(runtime: str, precision: str, tmp_path: Path) -> None:
    if runtime not in installed():
        pytest.skip(f"needs {runtime}")
    proof = export_model(self_taught(), runtime, precision, tmp_path)
    assert proof.score >= 63 / 64
    assert proof.parity is not None
    assert proof.parity.same_decisions is not None
    assert proof.diverges is None


@pytest.mark.parametrize("precision", ["float16", "int8-weights"])
@pytest.mark.parametrize("runtime", REFUSE)
def test_what_a_runtimes_files_cannot_hold_is_one_line_before_any_work(
    runtime: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if runtime not in installed():
        pytest.skip(f"needs {runtime}")

    def work(*_: Any, **__: Any) -> None:
        raise AssertionError("it was captured")

    monkeypatch.setattr(exporting, "capture", work)
    target = find_target("arm-corstone-300") if runtime == "ethosu" else this_machine()
    with pytest.raises(InputError, match=rf"{runtime} has no files of {precision}; it has.*int8"):
        export_model(self_taught(), runtime, precision, tmp_path, ExportOptions(target=target))
    with pytest.raises(InputError, match=r"float16|Ethos-U computes on int8"):
        find_runtime(runtime).lower(_task("small")[1], tmp_path / "a", "float16")


@pytest.mark.parametrize("runtime", HOLD_HALVES)
def test_a_weight_beyond_float16_is_named(runtime: str, tmp_path: Path) -> None:
    if runtime not in installed():
        pytest.skip(f"needs {runtime}")
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    with torch.no_grad():
        model.get_parameter("2.weight")[1, 2] = -70000.0
    network = capture(model.eval(), torch.randn(2, 8))
    with pytest.raises(InputError, match=r"^2\.weight has a weight of -70000, .* 65504") as error:
        find_runtime(runtime).lower(network, tmp_path / "a", "float16")
    assert "\n" not in str(error.value)


def test_infinities_of_a_mask_stay(tmp_path: Path) -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(8, 8)
            self.register_buffer("mask", torch.full((8, 8), -torch.inf).triu(1))

        def forward(self, x: Tensor) -> Tensor:
            return (self.project(x)[:, :, None] + self.mask).softmax(-1)

    network, x = capture(Masked().eval(), torch.randn(2, 8)), torch.randn(4, 8)
    artifact = OnnxRuntime().lower(network, tmp_path / "a.onnx", "float16")
    assert gap(network, OnnxRuntime().load(artifact), x) < 1e-2


@pytest.mark.parametrize("name", [*SMALL, "plain_cnn", "densenet", "vit_by_hand"])
def test_values_of_an_onnx_model_can_be_halves_too(name: str) -> None:
    task, network = _task(name)
    model = to_onnx(network)
    before = model.SerializeToString()
    half = halve(model, values=True)
    assert model.SerializeToString() == before
    assert sum(node.op_type == "Cast" for node in half.graph.node) == 2
    kinds = {onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64}
    assert {one.data_type for one in half.graph.initializer} <= kinds
    session = OnnxSession(half.SerializeToString())
    inputs = task.train[0][0]  # type: ignore[index]
    assert 0 < gap(network, session, inputs) < 1e-2
    _assert_float32(session.run(as_arrays(inputs)))


@pytest.mark.parametrize("precision", ["float16", "int8-weights"])
@pytest.mark.parametrize("name", ["resnet_a", "vit_fused"])
def test_onnx_runtime_folds_what_makes_weights_real(
    precision: str, name: str, lower: Lower
) -> None:
    def run(precision: str) -> list[str]:
        artifact = lower("onnxruntime", name, precision)[2]
        found = [one.operator for one in OnnxRuntime().placement(artifact)]
        return [one for one in found if one in ("Cast", "DequantizeLinear", "Mul", "Conv", "Gemm")]

    assert run(precision) == run("float32")


def test_a_quantized_network_keeps_its_integers_in_float16(tmp_path: Path) -> None:
    task, network = _task("small")
    quantized = Quantize(samples=16)(network, task)
    x = as_arrays(task.train[0][0])  # type: ignore[index]
    found = [
        OnnxRuntime().load(OnnxRuntime().lower(quantized, tmp_path / f"{floats}.onnx", floats))
        for floats in OnnxRuntime.floats
    ]
    assert np.array_equal(found[0].run(x), found[1].run(x))


def test_few_bit_weights_alone_are_packed_and_folded(tmp_path: Path) -> None:
    task, network = _task("resnet_a")
    narrow = Quantize(weights=4, activations=None, samples=16)(network, task)
    artifact = OnnxRuntime().lower(narrow, tmp_path / "a.onnx")
    assert OnnxRuntime().weight_bytes(artifact) < 0.14 * 4 * sum(
        one.numel() for one in network.parameters()
    )
    x = task.train[0][0]  # type: ignore[index]
    assert gap(narrow, OnnxRuntime().load(artifact), x) < 1e-5
    assert "DequantizeLinear" not in {one.operator for one in OnnxRuntime().placement(artifact)}


def test_the_layer_that_a_half_loses_is_found() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    with torch.no_grad():
        model.get_parameter("2.weight").mul_(1e-8)  # below the least that float16 holds
        model.get_parameter("2.bias").zero_()
    network, x = capture(model.eval(), torch.randn(2, 8)), torch.randn(2, 8).abs() + 1
    assert first_divergence(network, OnnxRuntime(), x, "float16") == "2"
    assert first_divergence(network, OnnxRuntime(), x) is None


def test_weights_that_the_litert_converter_multiplies_are_refused(tmp_path: Path) -> None:
    if "litert" not in installed():
        pytest.skip("needs litert")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16), nn.Linear(16, 8)).eval()
    nn.init.uniform_(model.get_parameter("1.weight"), 0.5, 1.5)
    batches = [(torch.randn(8, 4, 16), torch.arange(8))]
    task = Task(model, batches[0][0][:2], batches, batches)
    rounded = Quantize(activations=None)(capture(model, task.example), task)
    with pytest.raises(InputError, match="keeps 128 of 384 integer weights as real numbers"):
        find_runtime("litert").lower(rounded, tmp_path / "a.tflite")


def test_constants_that_share_their_integers_are_each_real_once_they_are_loaded() -> None:
    codes = numpy_helper.from_array(np.arange(-3, 3, dtype="i1").reshape(2, 3), "codes")
    steps = [numpy_helper.from_array(np.array([k, 2 * k], np.float32), f"steps{k}") for k in (1, 2)]
    nodes = [
        helper.make_node("DequantizeLinear", ["codes", f"steps{k}"], [f"w{k}"], axis=0)
        for k in (1, 2)
    ]
    nodes += [
        helper.make_node("Mul", ["x", "w1"], ["y"]),
        helper.make_node("Mul", ["y", "w2"], ["z"]),
    ]
    value = [helper.make_tensor_value_info(one, TensorProto.FLOAT, [2, 3]) for one in "xz"]
    graph = helper.make_graph(nodes, "shared", value[:1], value[1:], [codes, *steps])
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    x = np.random.default_rng(0).random((2, 3), "f4")
    before = OnnxSession(model.SerializeToString()).run(x)
    fold_when_loaded(model)
    assert not any(node.op_type == "DequantizeLinear" for node in model.graph.node)
    assert np.array_equal(OnnxSession(model.SerializeToString()).run(x), before)
