"""Few bits in a file: fewer bytes, and to the bit what the int8 file gives, by the same kernels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from penjing.arith.packing import ternary_bytes
from penjing.network import Network, capture
from penjing.network.lowering.integers import with_integers
from penjing.passes.rounding.quantize import Quantize
from penjing.runtimes.onnx import file as runtime
from penjing.runtimes.onnx.packing import FUNCTIONS, pack_weights
from penjing.runtimes.onnx.profile import seconds_by_layer, weight_bytes
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.tasks.task import Task

CODES = {
    "1 bit": [-1, 1], "ternary": [-1, 0, 1], "2 bits": [-2, -1, 0, 1],
    "3 bits": list(range(-3, 4)), "4 bits": list(range(-7, 8)), "6 bits": list(range(-31, 32)),
    "7 bits": list(range(-63, 64)),
}  # fmt: skip
BITS = {"1 bit": 1, "ternary": 1.6, "2 bits": 2, "3 bits": 3, "4 bits": 4, "6 bits": 6, "7 bits": 7}
UNPACKING = {"BitShift", "BitwiseAnd", "MatMulInteger", "Div", "Mod", "ReduceProd", *FUNCTIONS}


class Odd(nn.Module):
    """Layers whose numbers of weights are no multiples of 8 or 5."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 19, 3, padding=1)
        self.conv2 = nn.Conv2d(19, 37, 3, padding=1)
        self.conv3 = nn.Conv2d(37, 37, 3, padding=1)
        self.linear = nn.Linear(37, 111)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        return self.linear(torch.relu(self.conv3(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def quantized() -> Network:
    torch.manual_seed(0)
    batches = [(torch.randn(16, 3, 8, 8), torch.arange(16) % 5)]
    task = Task(Odd().eval(), batches[0][0][:2], batches, batches)
    return with_integers(Quantize(samples=16)(capture(task.model, task.example), task))


def lowered(network: Network, path: Path, packed: bool) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        if not packed:
            patch.setattr(runtime, "pack_weights", lambda model: model)
        return OnnxRuntime().lower(network, path)


def executed(content: bytes, folder: Path, level: Any = None) -> tuple[Any, Counter[str]]:
    """A session, and the kinds of nodes that it runs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    if level is not None:
        options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session, Counter(one.op_type for one in onnx.load(folder / "optimized.onnx").graph.node)


@pytest.mark.parametrize("name", CODES)
def test_a_packed_network_is_the_int8_network(
    name: str, quantized: Network, tmp_path: Path
) -> None:
    draw = np.random.default_rng(0)
    for key in ("conv2.weight", "conv3.weight", "linear.weight"):
        weight = quantized.state_dict()[key]
        weight.copy_(torch.from_numpy(draw.choice(CODES[name], tuple(weight.shape))))
    plain = lowered(quantized, tmp_path / "plain.onnx", packed=False)
    packed = lowered(quantized, tmp_path / "packed.onnx", packed=True)
    x = draw.standard_normal((3, 3, 8, 8), np.float32)
    kinds, outputs = {}, {}
    for one in (plain, packed):
        session, kinds[one] = executed(one.path.read_bytes(), tmp_path)
        outputs[one] = session.run(None, {"x": x})[0]
    assert np.array_equal(outputs[packed], outputs[plain])
    assert kinds[packed] == kinds[plain]
    assert kinds[packed]["QLinearConv"] == 3
    assert kinds[packed]["QGemm"] == 1
    assert not set(kinds[packed]) & UNPACKING
    count = 37 * 19 * 9 + 37 * 37 * 9 + 37 * 111
    saved = count * (1 - BITS[name] / 8)
    assert plain.file_bytes - packed.file_bytes > saved - 2_000
    assert weight_bytes(plain.path) - weight_bytes(packed.path) > saved - 400
    onnx.checker.check_model(onnx.load(packed.path))
    layers = seconds_by_layer(packed.path, x[:1], runs=4)
    assert set(layers) == set(seconds_by_layer(plain.path, x[:1], runs=4))
    assert {"conv1", "conv2", "conv3", "linear"} <= set(layers)


def model_of(codes: NDArray[Any], *moves: onnx.NodeProto, zero: int | None = None) -> Any:
    """x + dequantized codes, with `moves` between the codes and their DequantizeLinear."""
    last = moves[-1].output[0] if moves else "w"
    names = [last, "scale"] + ([] if zero is None else ["zero"])
    nodes = [
        *moves,
        helper.make_node("DequantizeLinear", names, ["real"]),
        helper.make_node("Add", ["x", "real"], ["y"]),
    ]
    held = [
        numpy_helper.from_array(codes.astype(np.int8), "w"),
        numpy_helper.from_array(np.array(0.5, np.float32), "scale"),
        numpy_helper.from_array(np.array([-1], np.int64), "flat"),
    ]
    if zero is not None:
        held.append(numpy_helper.from_array(np.array(zero, np.int8), "zero"))
    floats = [helper.make_tensor_value_info(one, TensorProto.FLOAT, None) for one in ("x", "y")]
    graph = helper.make_graph(nodes, "g", floats[:1], floats[1:], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def values(model: Any, folder: Path, level: Any = None) -> NDArray[np.float32]:
    session, _ = executed(model.SerializeToString(), folder, level)
    found: NDArray[np.float32] = session.run(None, {"x": np.zeros(1, np.float32)})[0]
    return found


@pytest.mark.parametrize("name", CODES)
@pytest.mark.parametrize("shape", [(7001,), (67, 101), (3, 5, 7, 67)])
def test_unpacked_equals_packed_for_odd_counts(
    name: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    codes = np.random.default_rng(1).choice(CODES[name], shape)
    model = model_of(codes)
    packed = pack_weights(model)
    assert packed.functions
    assert np.array_equal(values(packed, tmp_path), 0.5 * codes)
    plainly = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    assert np.array_equal(values(packed, tmp_path, plainly), 0.5 * codes)
    assert not model.functions  # what was given is as it was
    assert numpy_helper.to_array(model.graph.initializer[0]).dtype == np.int8


def test_a_transposed_or_reshaped_weight_is_packed_too(tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(-7, 8, (77, 100))
    turned = helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0])
    flat = helper.make_node("Reshape", ["t", "flat"], ["r"])
    packed = pack_weights(model_of(codes, turned, flat, zero=3))
    assert packed.functions
    assert np.array_equal(values(packed, tmp_path), 0.5 * (codes.T.reshape(-1) - 3.0))
    stored = next(one for one in packed.graph.initializer if one.name == "w")
    assert (stored.data_type, list(stored.dims)) == (TensorProto.UINT8, [4, 963])


def test_two_widths_share_a_function_and_a_shape_is_written_once(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    one, two = draw.integers(-7, 8, (50, 101)), draw.integers(-3, 4, (50, 101))
    model = model_of(one)
    model.graph.initializer.append(numpy_helper.from_array(two.astype(np.int8), "v"))
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["v", "scale"], ["other"]))
    model.graph.node[-1].input[0] = "other"
    packed = pack_weights(model)
    assert np.array_equal(values(packed, tmp_path), 0.5 * (one + two))
    assert [function.name for function in packed.functions] == ["UnpackPlanes"]
    names = [one.name for one in packed.graph.initializer]
    assert names.count("penjing.50x101") == 1
    assert {"penjing.places4", "penjing.places3"} <= set(names)


@pytest.mark.parametrize(
    ("why", "model"),
    [
        ("eight bits", model_of(np.arange(-128, 128).repeat(40))),
        ("too small to pay", model_of(np.resize([-1, 0, 1], 300))),
        ("nothing in it", model_of(np.zeros((0, 4)))),
        ("also read as numbers", model_of(
            np.resize([-1, 0, 1], 9_000), helper.make_node("Cast", ["w"], ["c"], to=1),
            helper.make_node("Identity", ["w"], ["i"]),
        )),
    ],
)  # fmt: skip
def test_what_does_not_pay_or_is_read_otherwise_stays(why: str, model: Any) -> None:
    assert pack_weights(model) is model


def test_a_weight_that_is_an_output_or_read_within_a_branch_stays() -> None:
    codes = np.resize([-1, 0, 1], 9_000)
    model = model_of(codes)
    model.graph.output.append(helper.make_tensor_value_info("w", TensorProto.INT8, [9_000]))
    assert pack_weights(model) is model
    model = model_of(codes)
    inner = helper.make_graph(
        [helper.make_node("Cast", ["w"], ["inner"], to=1)], "branch", [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, [9_000])],
    )  # fmt: skip
    model.graph.node.append(
        helper.make_node("If", ["x"], ["z"], then_branch=inner, else_branch=inner)
    )
    assert pack_weights(model) is model


def test_a_small_weight_beside_a_large_one_stays(tmp_path: Path) -> None:
    model = model_of(np.resize([-1, 0, 1], 9_000))
    small = numpy_helper.from_array(np.resize([-1, 0, 1], 40).astype(np.int8), "small")
    model.graph.initializer.append(small)
    model.graph.node.append(helper.make_node("DequantizeLinear", ["small", "scale"], ["z"]))
    packed = pack_weights(model)
    kinds = {one.name: one.data_type for one in packed.graph.initializer}
    assert (kinds["w"], kinds["small"]) == (TensorProto.UINT8, TensorProto.INT8)


def test_a_zero_point_stays() -> None:
    model = model_of(np.arange(-128, 128).repeat(40), zero=1)
    zeros = numpy_helper.from_array(np.resize([-1, 0, 1], 10_240).astype(np.int8), "zero")
    model.graph.initializer[-1].CopyFrom(zeros)
    assert pack_weights(model) is model


def test_an_opset_without_the_operators_stays() -> None:
    model = model_of(np.resize([-1, 0, 1], 9_000))
    model.opset_import[0].version = 17
    assert pack_weights(model) is model


def test_five_ternary_codes_fill_a_byte() -> None:
    assert ternary_bytes(np.ones(5)).tolist() == [2 * (1 + 3 + 9 + 27 + 81)]
    assert len(ternary_bytes(np.zeros(11))) == 3
