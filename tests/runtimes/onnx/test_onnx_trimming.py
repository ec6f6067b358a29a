"""Trimming: a smaller file that ONNX Runtime runs to the bit as it ran the other."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from penjing.network import capture
from penjing.passes.rounding.quantize import Quantize
from penjing.runtimes.onnx import export as runtime
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.runtimes.onnx.trimming import trim
from penjing.tasks.task import Task
from tests.passes.rounding.test_quantize import Small
from tests.reference_networks import build


def executed(path: Path, x: Any) -> tuple[Any, Counter[str]]:
    """Outputs, and the kinds of nodes that were run."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    options.optimized_model_filepath = str(path.with_suffix(".optimized"))
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    kinds = Counter(one.op_type for one in onnx.load(path.with_suffix(".optimized")).graph.node)
    return session.run(None, {session.get_inputs()[0].name: x}), kinds


@pytest.mark.parametrize("name", ["int8", "plain_cnn", "mobilenet_v2", "vit_fused"])
def test_nothing_but_bytes_changes(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    if name == "int8":
        x = torch.randn(16, 3, 8, 8)
        batches = [(x, torch.arange(16) % 5)]
        task = Task(Small().eval(), x[:2], batches, batches)
        network = Quantize(samples=16)(capture(task.model, task.example), task)
    else:
        model, x = build(name)
        network = capture(model.eval(), x[:2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "trim", lambda model: None)
        before = OnnxRuntime().lower(network, tmp_path / "before.onnx")
    after = OnnxRuntime().lower(network, tmp_path / "after.onnx")
    found, kinds = executed(after.path, x[:3].numpy())
    want, wanted = executed(before.path, x[:3].numpy())
    assert all(np.array_equal(one, other) for one, other in zip(found, want, strict=True))
    assert kinds == wanted
    assert after.file_bytes < before.file_bytes
    trimmed, plain = onnx.load(after.path), onnx.load(before.path)
    onnx.checker.check_model(trimmed, full_check=True)
    assert {one.name for one in trimmed.graph.initializer} >= {
        key for key in network.state_dict() if key.endswith(".weight") and "linear" in key
    }
    named = [one.name for one in plain.graph.node if not one.name.startswith("/")]
    assert [one.name for one in trimmed.graph.node if one.name] == named


def test_zero_points_that_count_or_that_a_gemm_needs_stay(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(16, 3, 8, 8)
    batches = [(x, torch.arange(16) % 5)]
    task = Task(Small().eval(), x[:2], batches, batches)
    network = Quantize(samples=16)(capture(task.model, task.example), task)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "trim", lambda model: None)
        path = OnnxRuntime().lower(network, tmp_path / "a.onnx").path
    model = onnx.load(path)
    node = next(one for one in model.graph.node if one.name == "conv2/DequantizeLinear")
    node.input[2] = "uneven"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(8, np.int8), "uneven"))
    trim(model)
    inputs = {one.name: len(one.input) for one in model.graph.node if one.op_type != "Conv"}
    assert inputs["conv1/DequantizeLinear"] == 2
    assert inputs["conv2/DequantizeLinear"] == 3
    assert inputs["linear/DequantizeLinear"] == 3


def test_names_that_a_branch_reads_stay() -> None:
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    inner = helper.make_graph(
        [helper.make_node("Neg", ["long_name"], ["inner"])], "branch", [],
        [value("inner", TensorProto.FLOAT, [2])],
    )  # fmt: skip
    nodes = [
        helper.make_node("Abs", ["x"], ["long_name"]),
        helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner),
    ]
    inputs = [value("x", TensorProto.FLOAT, [2]), value("c", TensorProto.BOOL, [])]
    graph = helper.make_graph(nodes, "g", inputs, [value("y", TensorProto.FLOAT, [2])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    trim(model)
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    feed = {"x": np.array([-1, 2], np.float32), "c": np.array(True)}
    assert session.run(None, feed)[0].tolist() == [-1, -2]
