"""Embeddings and recurrent layers in every runtime: integers in the file, and the same answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from penjing.network import Network, capture
from penjing.network.graph.qparams import alone_qparams
from penjing.passes import Quantize
from penjing.runtimes.contract import Runtime
from penjing.tasks.task import Task
from penjing.trials.evaluation.remarks import remarks
from tests.runtime_networks import here
from tests.sequence_networks import STEPS, WORDS, Reader, reading

NAMES = ("onnxruntime", "openvino", "litert", "executorch")
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "GRU": (nn.GRU, {}),
    "LSTM": (nn.LSTM, {}),
    "RNN": (nn.RNN, {"nonlinearity": "relu"}),
    "two GRUs, both ways": (nn.GRU, {"num_layers": 2, "bidirectional": True}),
}


@pytest.fixture(params=NAMES)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    return here(str(request.param))


def _quantized(runtime: Runtime, task: Task, precision: str) -> Network:
    if precision == "int8":
        quantize = Quantize(samples=16, **runtime.constraints)
    else:
        quantize = Quantize(activations=None)
    return quantize(capture(task.model, task.example), task)


@pytest.mark.parametrize("precision", ["int8", "int8-weights"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_computes_what_its_network_does(
    runtime: Runtime, kind: str, precision: str, tmp_path: Path
) -> None:
    if precision == "int8-weights" and not runtime.weights_alone:
        pytest.skip(f"{runtime.name} has no files of {precision}")
    layer, options = KINDS[kind]
    task = reading(Reader(layer, **options))
    network = _quantized(runtime, task, precision)
    artifact = runtime.lower(network, tmp_path / f"model{runtime.ending}")
    x = torch.randint(WORDS, (4, STEPS))
    with torch.no_grad():
        wanted = runtime.as_computed(network)(x).numpy()
    assert np.allclose(runtime.load(artifact).run(x.numpy()), wanted, atol=1e-5)
    floats = 4 * sum(parameter.numel() for parameter in task.model.parameters())
    held = runtime.weight_bytes(artifact)
    assert held is not None
    stored = alone_qparams(network)
    assert "words.weight" in {qparams.source_name for qparams in stored}
    if (runtime.name, kind) == ("openvino", "RNN"):
        return  # it repeats a short one for each step, with matrices of its own
    saved = sum(
        3 * network.tensor(qparams.source_name).numel() - 4 * network.tensor(qparams.scale).numel()
        for qparams in stored
    )
    assert held < floats - saved + 1000


def test_which_runtimes_repeat_the_recurrence(runtime: Runtime, tmp_path: Path) -> None:
    model = Reader(nn.GRU).eval()
    counts = []
    for length in (3, 4):
        network = capture(model, torch.zeros(2, length, dtype=torch.long))
        artifact = runtime.lower(network, tmp_path / f"{length}{runtime.ending}")
        counts.append(len(runtime.placement(artifact)))
    assert (counts[0] != counts[1]) == runtime.unrolls


class Unrolling(Reader):
    """What stands for a runtime that repeats the recurrence."""

    unrolls = True


def test_remarks_name_weights_in_float_and_larger_files() -> None:
    task = reading(Reader(nn.GRU))
    network = capture(task.model, task.example)
    runtime: Any = Unrolling(nn.GRU)
    floats = 4 * sum(parameter.numel() for parameter in network.parameters())
    assert remarks(network, runtime, floats) == []
    (said,) = remarks(network, runtime, 50_000)
    assert said == (
        "the file has a copy of the recurrent layer's operators for each step, and so takes 50 kB, "
        f"more than the {floats / 1000:.0f} kB of the weights in float"
    )
    rounded = Quantize(activations=None, skip=("words",))(network, task)
    assert remarks(rounded, runtime, 30_000) == ["words.weight stays in float: 19 of 30 kB"]
    assert remarks(Quantize(activations=None)(network, task), runtime, 10_000) == []
