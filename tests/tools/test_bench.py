"""Bench: inputs of any type are drawn, and a file that can't be loaded has a name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from penjing.errors import InputError
from penjing.network import capture
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.tools.bench import bench
from penjing.tools.profile import profile_file
from tests.reference_networks import build


def test_bench_names_the_file_that_it_cannot_use(tmp_path: Path) -> None:
    model, x = build("plain_cnn")
    good = OnnxRuntime().lower(capture(model, x[:2]), tmp_path / "good.onnx").path
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(good.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"broken\.onnx: ONNX Runtime can't load this file"):
        bench([good, broken])
    with pytest.raises(InputError, match=r"file .*absent.* doesn't exist"):
        bench([tmp_path / "absent.onnx"])
    other = OnnxRuntime().lower(
        capture(torch.nn.Linear(3, 2), torch.zeros(2, 3)), tmp_path / "other.onnx"
    )
    with pytest.raises(InputError, match=r"inputs differ: .*good\.onnx.*other\.onnx"):
        bench([good, other.path])
    times = bench([good, good], seconds=0.2)
    assert [one.rsplit("/", 1)[-1] for one in times] == ["good.onnx", "good.onnx (again)"]


def file_of(folder: Path, kind: int, shape: list[Any], *nodes: onnx.NodeProto) -> Path:
    """A file with the input x, the output y, and `sizes`, the constant [3, 4]."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [*nodes], "g", [value("x", kind, shape)], [value("y", kind, None)],
        [numpy_helper.from_array(np.array([3, 4]), "sizes")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, folder / "own.onnx")
    return folder / "own.onnx"


@pytest.mark.parametrize("kind", ["FLOAT16", "INT32", "UINT8", "BOOL", "DOUBLE", "INT64"])
def test_inputs_of_any_type_are_drawn(kind: str, tmp_path: Path) -> None:
    same = helper.make_node("Reshape", ["x", "sizes"], ["y"])
    path = file_of(tmp_path, getattr(TensorProto, kind), [4, 3], same)
    assert bench([path], seconds=0.1)[str(path)].latency_ms > 0


def test_inputs_that_cannot_be_drawn_or_do_not_fit_are_named(tmp_path: Path) -> None:
    same = helper.make_node("Identity", ["x"], ["y"])
    with pytest.raises(InputError, match=r"tensor\(string\), for which penjing can't make"):
        bench([file_of(tmp_path, TensorProto.STRING, [2], same)])
    fixed = helper.make_node("Reshape", ["x", "sizes"], ["y"])
    path = file_of(tmp_path, TensorProto.FLOAT, ["n", 3], fixed)
    with pytest.raises(InputError, match=r"own\.onnx fails on random inputs of shape \[1, 3\]"):
        bench([path])
    with pytest.raises(InputError, match=r"own\.onnx fails on"):
        profile_file(path)
