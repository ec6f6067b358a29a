"""ONNX Runtime's execution providers: what one computes is the network's, what it can't is said."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from penjing.errors import InputError, PenjingError
from penjing.network import capture
from penjing.runtimes.contract import Runtime
from penjing.runtimes.onnx.export import BATCH
from penjing.runtimes.onnx.providers import OnProvider, OnQnn, OnTensorRt
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.runtimes.onnx.session import OnnxSession, Provider
from penjing.runtimes.registry import ENTRIES, find_runtime
from penjing.targets import find_target
from penjing.tools.inputs import open_file
from tests.runtime_networks import (
    NETWORKS,
    assert_damage_is_refused,
    assert_zeros_fit,
    first,
    gap,
    network_of,
)

PROVIDERS = [name for name in ENTRIES if name.startswith("onnxruntime-")]


@pytest.fixture(params=PROVIDERS)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    """Each provider that can run here; a test of any other one says why not."""
    entry = ENTRIES[request.param]
    if entry.absent:
        pytest.skip(f"{request.param}: {entry.absent}; {entry.install}")
    return find_runtime(request.param)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_integers_are_the_networks_and_run_on_the_unit(
    runtime: OnProvider, name: str, tmp_path: Path
) -> None:
    network, inputs = network_of(name, True, **runtime.constraints)
    artifact = runtime.lower(network, tmp_path / f"a{runtime.ending}")
    session = runtime.load(artifact)
    assert gap(network, session, first(inputs, 3)) < 0.15
    assert_zeros_fit(session)
    where = Counter(one.unit for one in runtime.placement(artifact))
    assert where[runtime.unit] > where["cpu"]


@pytest.mark.parametrize("floats", ["float32", "float16"])
def test_floats_are_the_networks(runtime: OnProvider, floats: str, tmp_path: Path) -> None:
    network, inputs = network_of("small", False)
    artifact = runtime.lower(network, tmp_path / f"a{runtime.ending}", floats)
    assert gap(network, runtime.load(artifact), inputs) < 0.02
    assert {one.unit for one in runtime.placement(artifact)} == {runtime.unit}


def test_a_damaged_file_is_refused(
    runtime: OnProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, _ = network_of("linear", False)
    artifact = runtime.lower(network, tmp_path / f"a{runtime.ending}")
    assert_damage_is_refused(runtime, artifact, monkeypatch)


class Odd(nn.Module):
    """A layer behind an operator for which NPUs have no kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(torch.special.erf(x) + torch.round(x))


def test_what_falls_back_is_named(tmp_path: Path) -> None:
    if absent := ENTRIES["onnxruntime-qnn"].absent:
        pytest.skip(f"onnxruntime-qnn: {absent}")
    network = capture(Odd().eval(), torch.randn(2, 8))
    found = OnQnn().placement(OnQnn().lower(network, tmp_path / "a.onnx"))
    fallen = [one for one in found if one.unit == "cpu"]
    assert {one.operator for one in fallen} == {"Erf"}
    assert all("doesn't support it" in one.why for one in fallen)


def test_tensorrt_gets_no_zero_points(tmp_path: Path) -> None:
    """Lowered here, where no GPU is needed: every zero point is 0, every integer signed."""
    runtime, target = OnTensorRt(), find_target("jetson-orin-nano")
    uneven, _ = network_of("small", True)
    assert "zero point" in runtime.problems(uneven, target)[0]
    even, inputs = network_of("small", True, **runtime.constraints)
    assert not runtime.problems(even, target)
    path = runtime.lower(even, tmp_path / "a.onnx").path
    graph = onnx.load(path).graph
    known = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    rounding = [node for node in graph.node if node.op_type.endswith("QuantizeLinear")]
    zeros = [known[node.input[2]] for node in rounding if len(node.input) > 2]
    assert rounding
    assert not any(np.any(zero) for zero in zeros)
    assert {zero.dtype.name for zero in zeros} <= {"int8", "int32"}
    session = OnnxRuntime().load(OnnxRuntime().artifact(path))
    assert gap(even, session, inputs) < 0.1


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_without_kernels_for_integers_constants_become_real_when_a_file_is_loaded(
    name: str, tmp_path: Path
) -> None:
    network, inputs = network_of(name, True)
    content = OnnxRuntime().lower(network, tmp_path / "a.onnx").path.read_bytes()
    profile, floats = tmp_path / "profile", Provider(integer_kernels=False)
    session = OnnxSession(content, provider=floats, profile_to=profile)
    assert gap(network, session, inputs) < 0.1
    told = json.loads(Path(session.session.end_profiling()).read_text())
    ran = {one["name"]: one["args"] for one in told if one.get("name", "").endswith("_kernel_time")}
    names = Counter(one["op_name"] for one in ran.values())
    assert not any(one.startswith("QLinear") for one in names)
    nodes = onnx.load_from_string(content).graph.node
    computed = {name for node in nodes for name in node.output}
    read = [node.input[0] in computed for node in nodes if node.op_type == "DequantizeLinear"]
    assert not all(read)
    assert 0 < names["DequantizeLinear"] <= sum(read)


def test_a_batch_is_run_one_by_one_where_sizes_must_be_known(tmp_path: Path) -> None:
    network, inputs = network_of("pair to dict", False)
    content = OnnxRuntime().lower(network, tmp_path / "a.onnx").path.read_bytes()
    fixed = OnnxSession(content, provider=Provider(one_by_one=True))
    assert [one.shape[0] for one in fixed.inputs] == [1, 1]
    assert gap(network, fixed, inputs) < 1e-5
    shapes = [one.type.tensor_type.shape.dim for one in onnx.load_from_string(content).graph.input]
    assert {shape[0].dim_param for shape in shapes} == {BATCH}


def test_a_provider_that_is_not_here_is_one_line(tmp_path: Path) -> None:
    network, _ = network_of("linear", False)
    content = OnnxRuntime().lower(network, tmp_path / "a.onnx").path.read_bytes()
    with (
        pytest.raises(PenjingError, match="NoSuchExecutionProvider"),
        pytest.warns(UserWarning, match="NoSuch"),
    ):
        OnnxSession(content, provider=Provider("NoSuchExecutionProvider"))
    for name in PROVIDERS:
        if ENTRIES[name].absent:
            with pytest.raises(PenjingError, match=name):
                find_runtime(name)


def test_a_simulators_time_is_not_measured(tmp_path: Path) -> None:
    if absent := ENTRIES["onnxruntime-qnn"].absent:
        pytest.skip(f"onnxruntime-qnn: {absent}")
    if not OnQnn.stand_in:
        pytest.skip("needs a machine on which QNN is a simulator")
    network, _ = network_of("linear", False)
    path = OnnxRuntime().lower(network, tmp_path / "a.onnx").path
    with pytest.raises(InputError, match="only simulates its device"):
        open_file(path, "onnxruntime-qnn")
