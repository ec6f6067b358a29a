"""Profile and bench: every layer has a time, and a file that can't be loaded has a name."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from penjing.data import Arrays
from penjing.errors import InputError
from penjing.network import capture
from penjing.runtimes.onnxruntime import OnnxRuntime
from penjing.search.bench import bench
from penjing.search.profile import profile
from penjing.task import Task
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


def test_bench_names_the_file_that_it_cannot_use(tmp_path: Path) -> None:
    model, x = build("plain_cnn")
    good = OnnxRuntime().lower(capture(model, x[:2]), tmp_path / "good.onnx").path
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(good.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"broken\.onnx: ONNX Runtime can't load this file"):
        bench([good, broken])
    with pytest.raises(InputError, match=r"no file .*absent"):
        bench([tmp_path / "absent.onnx"])
    other = OnnxRuntime().lower(
        capture(torch.nn.Linear(3, 2), torch.zeros(2, 3)), tmp_path / "other.onnx"
    )
    with pytest.raises(InputError, match=r"inputs differ: .*good\.onnx.*other\.onnx"):
        bench([good, other.path])
    times = bench([good, good], seconds=0.2)
    assert [one.rsplit("/", 1)[-1] for one in times] == ["good.onnx", "good.onnx (again)"]
