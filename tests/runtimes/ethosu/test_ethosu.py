"""Ethos-U: every operator on the NPU, the decisions of what was compiled, and Vela's figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from penjing.contract import Artifact
from penjing.errors import InputError, UnsafeError
from penjing.measure.parity import parity
from penjing.network import Network, capture
from penjing.passes.rounding.quantize import Quantize
from penjing.runtimes.registry import ENTRIES, runtime_of
from penjing.targets import find_target
from penjing.tasks.task import Task
from penjing.tools.inputs import open_file
from tests.passes.rounding.test_quantize import Small
from tests.runtime_networks import assert_estimated_by_vela, gap, network_of

if ENTRIES["ethosu"].missing:
    pytest.skip(f"needs {', '.join(ENTRIES['ethosu'].missing)}", allow_module_level=True)

from penjing.quiet import quiet

with quiet():
    from penjing.runtimes.ethosu import by_tflite as ethosu
    from penjing.runtimes.ethosu.by_tflite import EthosU
    from penjing.runtimes.tflite import file as tflite_file
    from penjing.runtimes.tflite.session import LiteRtSession

ACCELERATORS = ("ethos-u55-128", "ethos-u65-256", "ethos-u85-256")


@pytest.fixture(scope="module")
def task() -> Task:
    torch.manual_seed(0)
    batches = [(torch.randn(16, 3, 8, 8), torch.arange(16) % 5) for _ in range(4)]
    return Task(Small().eval(), batches[0][0][:2], batches, batches)


@pytest.fixture(scope="module")
def network(task: Task) -> Network:
    return Quantize(samples=64, outputs=True)(capture(task.model, task.example), task)


@pytest.fixture(scope="module")
def artifact(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return EthosU().lower(network, tmp_path_factory.mktemp("ethosu") / "a_vela.tflite")


def _reference(artifact: Artifact) -> bytes:
    return EthosU().files(artifact.path)[1].read_bytes()


@pytest.mark.parametrize("accelerator", ACCELERATORS)
def test_every_operator_runs_on_the_npu(
    artifact: Artifact, accelerator: str, tmp_path: Path
) -> None:
    runtime = EthosU(accelerator)
    made = runtime.compile(_reference(artifact), tmp_path / "b_vela.tflite")
    places = runtime.placement(made)
    assert {one.unit for one in places} == {"npu"}
    kinds = [one.kind for one in tflite_file.operators(tflite_file.read(_reference(artifact)))]
    assert [one.operator for one in places] == kinds
    compiled = tflite_file.operators(tflite_file.read(made.path.read_bytes()))
    assert [one.kind for one in compiled] == [ethosu.NPU_OPERATOR]
    assert_estimated_by_vela(runtime.estimate(made), accelerator)


def test_gates_run_on_the_npu_too(tmp_path: Path) -> None:
    network, inputs = network_of("gated", True, **EthosU.constraints)
    made = EthosU().lower(network, tmp_path / "a_vela.tflite")
    places = EthosU().placement(made)
    assert {one.unit for one in places} == {"npu"}
    assert {one.operator for one in places} >= {"LOGISTIC", "MUL", "DEPTHWISE_CONV_2D"}
    assert gap(network, EthosU().load(made), inputs) < 0.1


def test_what_runs_here_is_what_was_compiled(
    network: Network, task: Task, artifact: Artifact
) -> None:
    session = EthosU().load(artifact)
    found = parity(network, session, task.test)
    assert found.max_difference <= 2.5 * network.tensor("linear_scale").item()
    assert found.same_decisions is not None
    assert found.same_decisions > 0.95
    assert isinstance(session, LiteRtSession)
    assert {one["dtype"] for one in (*session.file.takes, *session.file.gives)} == {np.int8}
    assert EthosU().weight_bytes(artifact) > 0
    assert runtime_of(artifact.path).name == "ethosu"
    assert runtime_of(EthosU().files(artifact.path)[1]).name == "litert"


def test_what_falls_back_is_named_with_vela_s_reason(
    network: Network, task: Task, tmp_path: Path
) -> None:
    real_ends = Quantize(samples=64)(capture(task.model, task.example), task)
    made = EthosU().lower(real_ends, tmp_path / "a_vela.tflite")
    fallen = [one for one in EthosU().placement(made) if one.unit == "cpu"]
    assert [one.operator for one in fallen] == ["DEQUANTIZE", "FULLY_CONNECTED"]
    assert fallen[1].name == "linear/FULLY_CONNECTED"
    assert "Float32" in fallen[1].why
    assert all(one.why and "doesn't say" not in one.why for one in fallen)


def test_changed_and_cut_files_are_refused_before_the_runtime_sees_them(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: Any) -> None:
        raise AssertionError("the runtime has got the bytes")

    monkeypatch.setattr(EthosU, "open", opened)
    moved = replace(artifact, path=tmp_path / artifact.path.name)
    kept = [one.read_bytes() for one in EthosU().files(artifact.path)]
    files = EthosU().files(moved.path)
    for one, content in zip(files, kept, strict=True):
        one.write_bytes(content)
    draw = np.random.default_rng(0)
    for case in range(100):
        one, content = files[case % 3], kept[case % 3]
        changed, place = bytearray(content), int(draw.integers(len(content)))
        changed[place] ^= 1 << int(draw.integers(8))
        one.write_bytes(changed if case % 2 else content[:place])
        with pytest.raises(UnsafeError, match="sha256"):
            EthosU().load(moved)
        one.write_bytes(content)


def test_no_time_of_the_stand_in_is_told(artifact: Artifact) -> None:
    with pytest.raises(InputError, match=r"ethosu only simulates its device"):
        open_file(artifact.path)


def test_real_numbers_are_refused(task: Task, tmp_path: Path) -> None:
    network = capture(task.model, task.example)
    with pytest.raises(InputError, match=r"computes on int8.*Quantize\(outputs=True\)"):
        EthosU().lower(network, tmp_path / "a_vela.tflite")
    assert any("int8" in one for one in EthosU().problems(network, find_target("cpu")))


def test_an_accelerator_that_there_is_not_is_refused() -> None:
    with pytest.raises(InputError, match=r"no accelerator 'ethos-u56'; choose one of ethos-u55-32"):
        EthosU("ethos-u56")


def test_vela_s_refusal_is_one_line(artifact: Artifact, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Vela can't compile this network: .*No_Such"):
        EthosU(system="No_Such").compile(_reference(artifact), tmp_path / "a_vela.tflite")


def test_fewer_weights_cost_less(artifact: Artifact, tmp_path: Path) -> None:
    """A layer of linear weights, nine in ten of them zero, is packed and read in less."""
    found = []
    for share in (0.0, 0.9):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
        with torch.no_grad():
            for one in (model.get_parameter("0.weight"), model.get_parameter("2.weight")):
                one.mul_(torch.rand_like(one) >= share)
        batches = [(torch.randn(16, 64), torch.arange(16) % 10)]
        task = Task(model.eval(), batches[0][0][:2], batches, batches)
        network = Quantize(samples=16, outputs=True)(capture(model, task.example), task)
        made = EthosU().lower(network, tmp_path / f"{share}_vela.tflite")
        assert {one.unit for one in EthosU().placement(made)} == {"npu"}
        found.append(EthosU().estimate(made))
    dense, sparse = found
    assert sparse.flash_bytes < 0.6 * dense.flash_bytes  # type: ignore[operator]
    assert sparse.cycles < dense.cycles  # type: ignore[operator]
    assert sparse.macs == dense.macs
