"""Detectors: their heads are pruned and rounded, and every runtime's file gives the same boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from penjing.measure.costs import costs
from penjing.network import Network, capture, find_axes
from penjing.network.graph.qparams import value_qparams
from penjing.passes import PruneChannels, Quantize
from penjing.runtimes.contract import Runtime
from penjing.tasks.task import Task
from tests.detection_networks import BINS, DETECTORS, Yolo
from tests.runtime_networks import gap, here

NAMES = ("onnxruntime", "openvino", "litert", "executorch", "ethosu")


@pytest.fixture(params=NAMES)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    return here(str(request.param))


def spread(outputs: Any, targets: Tensor) -> Tensor:
    """A loss of all outputs."""
    return torch.stack([part.square().mean() for part in outputs.values()]).sum()


def detecting(name: str) -> tuple[Task, Tensor]:
    """The detector, with statistics of the images that it is tested with."""
    torch.manual_seed(0)
    model, x = DETECTORS[name](), torch.randn(16, 3, 64, 64)
    model.train()(x)
    batches = [(x[:8], torch.zeros(8)), (x[8:], torch.zeros(8))]
    return Task(model.eval(), x[:2], batches, batches, loss=spread), x


def halved(task: Task) -> Network:
    """Half of its channels are gone."""
    return PruneChannels(0.5, multiple=2)(capture(task.model, task.example), task)


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("name", DETECTORS)
def test_a_file_of_a_halved_detector_computes_what_its_network_does(
    runtime: Runtime, name: str, precision: str, tmp_path: Path
) -> None:
    if precision == "float32" and not runtime.floats:
        pytest.skip(f"{runtime.name} computes on integers only")
    task, x = detecting(name)
    network = halved(task)
    if precision == "int8":
        network = Quantize(samples=16, **runtime.constraints)(network, task)
        assert len(value_qparams(network)) >= 8
    artifact = runtime.lower(network, tmp_path / f"model{runtime.ending}")
    apart = gap(runtime.as_computed(network), runtime.load(artifact), x[:4])
    assert apart < (1e-4 if precision == "float32" else 0.15)


@pytest.mark.parametrize("name", DETECTORS)
def test_every_part_of_a_detector_is_pruned_and_its_outputs_keep_their_shapes(name: str) -> None:
    task, x = detecting(name)
    whole, half = capture(task.model, task.example), halved(task)
    macs = [sum(layer.macs for layer in costs(network)) for network in (half, whole)]
    assert macs[0] < 0.5 * macs[1]
    assert {k: y.shape for k, y in half(x).items()} == {k: y.shape for k, y in whole(x).items()}
    assert not find_axes(whole).trace.unknown


def test_the_bins_of_its_distributions_stay() -> None:
    task, _ = detecting("two scales and distributions")
    assert isinstance(task.model, Yolo)
    half = halved(task)
    for head in ("boxes.0.1", "boxes.1.1"):
        assert half.tensor(f"{head}.weight").shape[0] == 4 * BINS
