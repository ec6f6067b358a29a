"""A GPU: tuning on it ends as on the CPU, and its files are measured beside the CPU's."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from penjing.network import capture
from penjing.passes import Quantize, Tune
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.runtimes.registry import ENTRIES, find_runtime
from penjing.targets import this_gpu
from penjing.tools.bench import bench
from penjing.tools.export import ExportOptions, export_model, verify
from penjing.tune.options import TuneOptions
from penjing.tune.train import train, validate
from tests.fits import fit
from tests.reference_networks import self_taught

RUNTIMES = ["onnxruntime-cuda", "onnxruntime-tensorrt"]
NO_CUDA = "torch finds no CUDA device here"


@pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_CUDA)
@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_tuning_on_cuda_gives_back_a_network_of_the_cpu(precision: str) -> None:
    task = self_taught()
    network = capture(task.model, task.example)
    options = TuneOptions(epochs=2, lr=0.005, device="cuda", precision=precision)
    tuned = train(network, task, options).network
    assert tuned.device.type == "cpu"
    assert {one.dtype for one in tuned.parameters()} == {torch.float32}
    assert validate(tuned, task) == 1.0
    again = train(network, task, TuneOptions(epochs=2, lr=0.005, device="cpu")).network
    assert math.isclose(validate(again, task), validate(tuned, task), abs_tol=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_CUDA)
def test_what_is_rounded_is_tuned_on_cuda() -> None:
    task = self_taught()
    rounded = Quantize(samples=32)(capture(task.model, task.example), task)
    tuned = Tune(TuneOptions(epochs=1, lr=0.001, device="cuda"))(rounded, task)
    assert validate(tuned, task) >= validate(rounded, task)


def _skip_without(name: str) -> None:
    """Skip, with the reason, where the runtime or the GPU is missing."""
    if absent := ENTRIES[name].absent:
        pytest.skip(f"{name}: {absent}; {ENTRIES[name].install}")
    if this_gpu() is None:
        pytest.skip(f"{name}: no NVIDIA driver tells of a GPU here")


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
@pytest.mark.parametrize("name", RUNTIMES)
def test_a_file_runs_on_the_gpu_and_is_measured_beside_the_cpu(
    name: str, precision: str, tmp_path: Path
) -> None:
    _skip_without(name)
    task = self_taught()
    proof = export_model(task, name, precision, tmp_path, ExportOptions(target="gpu"))
    assert proof.placement["gpu"] > proof.placement.get("cpu", 0)
    assert proof.parity is not None
    assert proof.parity.same_decisions is not None
    assert proof.parity.same_decisions > 0.9
    path = tmp_path / "model.onnx"
    assert verify(path, task, name).sha256 == proof.sha256
    assert verify(path, task, OnnxRuntime.name).score == pytest.approx(proof.score, abs=0.1)
    times = bench([path, path], 2.0, runtimes=["onnxruntime", name])
    assert len(times) == 2
    print(name, precision, times)  # with pytest -s


def test_a_fit_for_the_gpu_measures_every_file_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _skip_without("onnxruntime-cuda")
    out = tmp_path / "out"
    result = fit(self_taught(), "gpu", 10.0, 0.7, out)
    measured = [one for one in result.everything if one.measurement.latency is not None]
    assert {"original", "int8", "original in float16"} <= {one.title for one in measured}
    for one in measured:
        assert one.artifact is not None
        runtime = find_runtime(one.runtime)
        units = {place.unit for place in runtime.placement(runtime.artifact(out / one.artifact))}
        assert "gpu" in units, one.title
    print(*(f"{one.title}: {one.measurement.latency}" for one in measured), sep="\n")
