"""Codebooks in a file: fewer bytes, the same bits, and nothing left to do at run time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from penjing.network import capture
from penjing.passes import Share, Sparsify
from penjing.runtimes.onnx.codebooks import _coded
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task
from tests.reference_networks import build


def _task(name: str) -> Task:
    model, x = build(name)
    data = Arrays(x, torch.arange(4))
    return Task(model, x[:2], data, data)


@pytest.mark.parametrize(
    ("options", "bits", "floats"),
    [
        ({"values": 2}, 1, "float32"),
        ({"values": 3}, 1.6, "float32"),
        ({"values": 16}, 4, "float16"),
        ({"values": 256}, 8, "float32"),
        ({"values": 4, "per": "channel"}, 2, "float32"),
    ],
)
def test_codes_take_the_bits_that_they_need(
    options: dict[str, Any], bits: float, floats: str, tmp_path: Path
) -> None:
    task = _task("plain_cnn")
    network = Share(**options)(capture(task.model, task.example), task)
    file = OnnxRuntime().lower(network, tmp_path / "model.onnx", floats)
    numbers = sum(one.numel() for one in network.parameters())
    assert file.file_bytes < numbers * bits / 8 + 14_000
    assert isinstance(task.test, Arrays)
    outputs = torch.as_tensor(OnnxRuntime().load(file).run(task.test.x.numpy()))
    with torch.no_grad():
        near = 1e-5 if floats == "float32" else 1e-2
        torch.testing.assert_close(outputs, network(task.test.x), rtol=near, atol=near)


def test_nothing_is_looked_up_at_run_time(tmp_path: Path) -> None:
    task = _task("resnet_b")
    sparse = Sparsify(0.5, "l1")(capture(task.model, task.example), task)
    network = Share(5)(sparse, task)
    file = OnnxRuntime().lower(network, tmp_path / "model.onnx")
    kinds = {node.op_type for node in onnx.load(file.path).graph.node}
    assert kinds & {"Gather", "GatherElements"}
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(file.path), options, providers=["CPUExecutionProvider"])
    loaded = {node.op_type for node in onnx.load(tmp_path / "loaded.onnx").graph.node}
    assert loaded.isdisjoint({"Gather", "GatherElements", "Cast", "UnpackPlanes", "BitShift"})


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 16, 255, 256])
@pytest.mark.parametrize("rows", [False, True])
def test_the_weight_is_the_same_bit_for_bit(count: int, rows: bool) -> None:
    draw = np.random.default_rng(0)
    shape = (6, 512)
    values = draw.normal(size=(6 if rows else 1, count)).astype(np.float32)
    weight = np.take_along_axis(
        values.repeat(6 // len(values), 0), draw.integers(count, size=shape), 1
    )
    found = _coded(weight)
    assert found is not None
    codes, table = found
    if table.ndim == 2:
        wide = codes.astype(np.int64)
        back = np.take_along_axis(table, np.where(wide < 0, wide + table.shape[1], wide), 1)
    else:
        back = table[codes.astype(np.int64)]
    assert np.array_equal(back, weight)
    assert codes.dtype == np.int8


def test_dense_weights_stay_as_they_are(tmp_path: Path) -> None:
    task = _task("plain_cnn")
    network = capture(task.model, task.example)
    file = OnnxRuntime().lower(network, tmp_path / "model.onnx")
    stored = [numpy_helper.to_array(one) for one in onnx.load(file.path).graph.initializer]
    assert max(one.size for one in stored if one.dtype == np.float32) == max(
        one.numel() for one in network.parameters()
    )
