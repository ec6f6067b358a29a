"""Profile: every layer has a time, and a file that is no model is one clear line."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import numpy_helper
from typer.testing import CliRunner

from penjing.cli.app import app
from penjing.errors import InputError
from penjing.network import capture
from penjing.passes.rounding.quantize import Quantize
from penjing.runtimes.onnx.profile import weight_bytes
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task
from penjing.tools.bench import bench
from penjing.tools.profile import profile, profile_file
from tests.reference_networks import build


@pytest.mark.parametrize("name", ["plain_cnn", "resnet_a", "densenet", "mobilenet_v2", "vit_fused"])
def test_every_layer_with_weights_has_a_time_of_its_own(name: str) -> None:
    model, x = build(name)
    data = Arrays(x, torch.arange(len(x)) % 10)
    layers, whole = profile(Task(model, x[:2], data, data), seconds=0.2)
    weighted = [one for one in layers if one.macs and one.params]
    assert {one.layer for one in weighted} >= {
        key for key, one in model.named_modules() if isinstance(one, torch.nn.Conv2d)
    }
    assert all(one.latency_ms is not None and one.latency_ms > 0 for one in weighted)
    assert not [one for one in layers if one.layer in ("(Conv)", "(Gemm)")]
    assert math.isclose(sum(one.latency_ms or 0 for one in layers), whole, rel_tol=1e-6)
    assert sum(one.params for one in layers) == sum(p.numel() for p in model.parameters())
    times = [one.latency_ms or 0 for one in layers]
    assert times == sorted(times, reverse=True)


def test_layers_whose_names_are_numbers_have_times_too() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    x = torch.zeros(4, 4)
    data = Arrays(x, torch.arange(4) % 2)
    layers, _ = profile(Task(model, x[:2], data, data), seconds=0.1)
    times = {one.layer: one.latency_ms for one in layers}
    assert times["0"] is not None
    assert times["2"] is not None


def ours(folder: Path, quantized: bool = False) -> Path:
    """A file of a small CNN that penjing wrote."""
    model, x = build("plain_cnn")
    network = capture(model.eval(), x[:2])
    if quantized:
        data = Arrays(x, torch.arange(len(x)) % 10)
        network = Quantize(samples=8)(network, Task(model, x[:2], data, data))
    return OnnxRuntime().lower(network, folder / "ours.onnx").path


def theirs(folder: Path, rename: bool) -> Path:
    """What ONNX Runtime's own quantizer makes of it; with names of someone else's, or without."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter([{"x": build("plain_cnn")[1][:4].numpy()}])

        def get_next(self) -> Any:
            return next(self.batches, None)

    path = folder / "theirs.onnx"
    quantize_static(ours(folder), path, Reader(), quant_format=QuantFormat.QDQ, per_channel=True)
    model = onnx.load(path)
    if rename:
        model.graph.input[0].name = "images:0"
        for position, node in enumerate(model.graph.node):
            node.name = "" if position % 2 else f"model/layer.{position}:{node.op_type}"
            node.input[:] = ["images:0" if one == "x" else one for one in node.input]
        onnx.save(model, path)
    return path


@pytest.mark.parametrize("rename", [False, True])
def test_a_file_from_elsewhere_can_be_timed_and_profiled(rename: bool, tmp_path: Path) -> None:
    path = theirs(tmp_path, rename)
    times = bench([tmp_path / "ours.onnx", path], seconds=0.2)
    assert all(one.latency_ms > 0 for one in times.values())
    nodes, whole = profile_file(path, seconds=0.2)
    assert {"QLinearConv", "QGemm"} <= {one.operator for one in nodes}
    assert math.isclose(sum(one.latency_ms or 0 for one in nodes), whole, rel_tol=1e-6)
    assert math.isclose(sum(one.share or 0 for one in nodes), 1, rel_tol=1e-6)
    assert sum(one.weight_bytes for one in nodes) == weight_bytes(path)
    assert all(one.weight_bytes for one in nodes if one.operator in ("QLinearConv", "QGemm"))
    assert len({one.node for one in nodes if one.weight_bytes}) > 3


@pytest.mark.parametrize("quantized", [False, True])
def test_every_weight_of_our_file_is_at_its_node(quantized: bool, tmp_path: Path) -> None:
    path = ours(tmp_path, quantized)
    nodes, _ = profile_file(path, seconds=0.2)
    assert sum(one.weight_bytes for one in nodes) == weight_bytes(path)
    sizes = {one.node: one.weight_bytes for one in nodes}
    graph = onnx.load(path).graph
    for one in graph.initializer:
        layer, _, kind = one.name.rpartition(".")
        if kind == "weight":
            reader = next(name for name in sizes if name.rpartition("/")[0] == layer)
            assert sizes[reader] >= numpy_helper.to_array(one).nbytes
    rest = sum(one.weight_bytes for one in nodes if one.latency_ms is None)
    assert rest < 0.05 * weight_bytes(path)
    times = [one.latency_ms or 0 for one in nodes]
    assert times == sorted(times, reverse=True)


def test_profile_of_a_file_on_the_command_line(tmp_path: Path) -> None:
    path = ours(tmp_path)
    found = CliRunner().invoke(app, ["profile", str(path), "--json"])
    assert found.exit_code == 0
    printed = json.loads(found.stdout)
    assert printed["latency_ms"] > 0
    assert set(printed["nodes"][0]) == {
        "node", "operator", "latency_ms", "share", "weight_bytes",
    }  # fmt: skip
    table = CliRunner().invoke(app, ["profile", str(path)], env={"COLUMNS": "200"})
    assert {"node", "operator", "kB", "ms", "all"} <= set(table.stdout.split())


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07"])
def test_a_file_that_is_no_model_is_one_clear_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.onnx"
    path.write_bytes(content)
    line = r"weights\.onnx: ONNX Runtime can't load this file: it is(n't an| no) ONNX model"
    with pytest.raises(InputError, match=line):
        profile_file(path)
    with pytest.raises(InputError, match=line):
        bench([path])
    with pytest.raises(InputError, match=r"file .*absent\.onnx doesn't exist"):
        profile_file(tmp_path / "absent.onnx")
