"""Signature: a file keeps the model's names, and the code that is given for it runs by itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from penjing.contract import Artifact
from penjing.network import Network, capture
from penjing.passes import Quantize
from penjing.runtimes.contract import Runtime
from penjing.runtimes.registry import ENTRIES
from penjing.runtimes.signature import Signature, TensorSpec
from penjing.tasks.task import Task
from tests.runtime_networks import here, network_of

RUN_HERE = [name for name in ENTRIES if "ethosu" not in name]
"""The runtimes whose own file can be run on this machine."""
ON_NPU = [name for name in ENTRIES if "ethosu" in name]


class Named(nn.Module):
    """Arguments called like layers, like an output and like Python's own words."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Linear(3, 4), nn.Linear(3, 4)

    def forward(self, conv: Tensor, pair: tuple[Tensor, Tensor], lambda_: Tensor) -> Any:
        mixed = self.linear(pair[1]) * lambda_
        return {"conv": self.conv(conv + pair[0]).relu(), "class": mixed, "add": mixed + 1}


def _named() -> tuple[Network, Task]:
    torch.manual_seed(0)
    inputs = (torch.randn(8, 3), (torch.randn(8, 3), torch.randn(8, 3)), torch.randn(8, 1))
    batches = [(inputs, torch.zeros(8, dtype=torch.int64))]
    task = Task(Named(), inputs, batches, batches)
    return capture(task.model, task.example), task


def _lowered(runtime: Runtime, network: Network, folder: Path) -> tuple[Artifact, Signature]:
    artifact = runtime.lower(network, folder / f"model{runtime.ending}")
    return artifact, runtime.signature(artifact)


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("name", RUN_HERE)
def test_a_file_keeps_the_names_of_the_model(name: str, quantized: bool, tmp_path: Path) -> None:
    runtime = here(name)
    network, task = _named()
    if quantized:
        network = Quantize(**runtime.constraints)(network, task)
    artifact, signature = _lowered(runtime, network, tmp_path)
    assert [spec.name for spec in signature.inputs] == ["conv", "pair_0", "pair_1", "lambda_"]
    names = [spec.name.removesuffix("_out") for spec in signature.outputs]
    assert names == ["conv", "class", "add"]
    shapes = [spec.shape[1:] for spec in (*signature.inputs, *signature.outputs)]
    assert shapes == [(3,), (3,), (3,), (1,), (4,), (4,), (4,)]
    given = [value.numpy() for value in (task.example[0], *task.example[1], task.example[2])]
    results = runtime.load(artifact).run(tuple(given))
    wanted = network(*task.example)
    assert list(results) == list(wanted)
    halves = "qnn" in name  # the NPU computes real numbers in float16
    apart = 0.2 if quantized else 0.02 if halves else 1e-4
    for key, value in wanted.items():
        assert np.abs(results[key] - value.detach().numpy()).max() < apart


@pytest.mark.parametrize("name", ON_NPU)
def test_a_compiled_file_keeps_names_and_scales(name: str, tmp_path: Path) -> None:
    runtime = here(name)
    network, _ = network_of("small", True, **runtime.constraints)
    _, signature = _lowered(runtime, network, tmp_path)
    assert [spec.name for spec in signature.inputs] == list(network.input_names)
    for spec in (*signature.inputs, *signature.outputs):
        assert spec.dtype == "int8"
        assert spec.scale is not None
        assert spec.scale > 0
    assert "ethos" in runtime.loading(tmp_path / "model", signature).lower()


FILLED = """
import sys
sys.modules["penjing"] = None
import numpy
usual, draw = numpy.zeros, numpy.random.default_rng(0)
numpy.zeros = lambda shape, kind: draw.standard_normal(shape).astype(kind)
{code}
numpy.zeros = usual
numpy.savez({place!r}, *[numpy.asarray(value) for value in ({results},)])
"""
"""The code with inputs that aren't zeros; its results are kept in a file."""


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("name", RUN_HERE)
def test_the_code_runs_without_penjing_and_gives_what_a_session_gives(
    name: str, quantized: bool, tmp_path: Path
) -> None:
    runtime = here(name)
    network, task = _named()
    if quantized:
        network = Quantize(**runtime.constraints)(network, task)
    artifact, signature = _lowered(runtime, network, tmp_path)
    code = runtime.loading(artifact.path, signature)
    assert max(map(len, code.replace(str(tmp_path), "exported").splitlines())) <= 80
    place = str(tmp_path / "results.npz")
    program = FILLED.format(code=code, place=place, results=", ".join(signature.variables[1]))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    draw = np.random.default_rng(0)
    values = [
        draw.standard_normal([size if isinstance(size, int) else 1 for size in spec.shape])
        for spec in signature.inputs
    ]
    wanted = runtime.load(artifact).run(tuple(value.astype("float32") for value in values))
    with np.load(place) as results:
        for given, value in zip(results.values(), wanted.values(), strict=True):
            assert given == pytest.approx(value, abs=1e-5)


def test_names_become_variables_that_python_takes() -> None:
    names = ["class", "a.b", "a_b", "0", "numpy", "x"]
    specs = tuple(TensorSpec(name, (1,), "float32") for name in names)
    inputs, outputs = Signature(specs, specs[-1:]).variables
    variables = [*inputs, *outputs]
    assert len(set(variables)) == len(variables)
    exec("\n".join(f"{name} = 0" for name in variables))
    assert "numpy" not in variables
