"""OpenVINO: what is lowered computes as the network does, integers in integers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from penjing.errors import InputError
from penjing.network import capture
from penjing.network.graph.qparams import weight_qparams
from penjing.passes.rounding.quantize import Quantize
from penjing.targets import find_target
from penjing.tasks.task import Task
from tests.runtime_networks import (
    NETWORKS,
    Maker,
    assert_damage_is_refused,
    assert_zeros_fit,
    first,
    gap,
    made_once,
    network_of,
)

pytest.importorskip("openvino", reason="needs openvino; pip install 'penjing[openvino]'")
from penjing.runtimes.openvino.runtime import OpenVino


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return made_once(OpenVino(), tmp_path_factory.mktemp("files"))


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"signal"}))
def test_floats_of_any_batch_size_are_the_networks(name: str, made: Maker) -> None:
    network, inputs, artifact = made(name, False)
    session = OpenVino().load(artifact)
    assert gap(network, session, first(inputs, 3)) < 1e-4
    assert_zeros_fit(session)
    assert {one.unit for one in OpenVino().placement(artifact)} == {"cpu"}


@pytest.mark.parametrize("name", ["small", "chained", "signal", "token", "pair to dict"])
def test_integers_are_computed_in_integers(name: str, made: Maker) -> None:
    """With `token`, OpenVINO 2026.4 compiled for a free batch size loses the bias of `patch`."""
    network, inputs, artifact = made(name, True)
    assert gap(network, OpenVino().load(artifact), inputs) < 0.1
    run = [one.operator.split() for one in OpenVino().placement(artifact)]
    layers = [number for kind, number in run if kind in ("Convolution", "FullyConnected")]
    assert len(layers) == len(weight_qparams(network))
    assert set(layers) <= {"u8", "i8"}
    joined = [number for kind, number in run if kind == "Concatenation"]
    assert len(joined) == {"chained": 2, "token": 1}.get(name, 0)
    if name == "chained":
        assert set(joined) <= {"u8", "i8"}


@pytest.mark.parametrize("floats", ["float32", "float16"])
@pytest.mark.parametrize("name", ["small", "chained", "token"])
def test_the_same_network_gives_the_same_bytes(name: str, floats: str, tmp_path: Path) -> None:
    network, _ = network_of(name, False)
    some = [OpenVino().lower(network, tmp_path / f"{n}.xml", floats) for n in range(2)]
    assert some[0].sha256 == some[1].sha256


def test_inputs_of_int8_weights_stay_floats(tmp_path: Path) -> None:
    torch.manual_seed(0)
    batches = [(torch.randn(16, 64), torch.arange(16) % 2) for _ in range(4)]
    task = Task(nn.Linear(64, 64), batches[0][0][:2], batches, batches)
    network = Quantize(activations=None)(capture(task.model, task.example), task)
    artifact = OpenVino().lower(network, tmp_path / "a.xml")
    assert gap(network, OpenVino().load(artifact), batches[0][0]) < 1e-5
    assert 64 * 64 < OpenVino().weight_bytes(artifact) < 2 * 64 * 64


def test_a_damaged_file_is_refused(made: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = made("linear", False)[2]
    files = OpenVino().files(artifact.path)
    assert artifact.file_bytes == sum(one.stat().st_size for one in files)
    assert_damage_is_refused(OpenVino(), artifact, monkeypatch)


def test_a_file_that_is_no_ir_is_one_line() -> None:
    with pytest.raises(InputError, match="OpenVINO can't load this file: ") as error:
        OpenVino().open([b"not a model", b""])
    assert "\n" not in str(error.value)


def test_inputs_of_another_shape_are_one_line(made: Maker) -> None:
    session = OpenVino().load(made("linear", False)[2])
    with pytest.raises(InputError, match=r"inputs of shape \(2, 7\)") as error:
        session.run(torch.zeros(2, 7).numpy())
    assert "\n" not in str(error.value)


def test_what_stands_against_it() -> None:
    network, _ = network_of("linear", quantized=True)
    assert not OpenVino().problems(network, find_target("cpu"))
    assert "no openvino" in OpenVino().problems(network, find_target("arm-corstone-300"))[0]
