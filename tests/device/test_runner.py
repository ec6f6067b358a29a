"""The scripts that travel: what they may import, what they refuse, and the hash before the load."""

from __future__ import annotations

import ast
import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from penjing.contract import Artifact
from penjing.device import agent, runner
from penjing.device.here import run_here
from penjing.device.protocol import AGENT, RUNNER, Parcel, parcel_of
from penjing.errors import MachineError
from penjing.files import sha256
from penjing.measure.memory import peak_process_bytes
from penjing.targets import described
from penjing.tools.inputs import random_inputs
from tests.loopback import drawn, expected


@pytest.mark.parametrize("script", [RUNNER, AGENT], ids=lambda path: path.name)
def test_a_script_that_travels_is_python_3_9_and_imports_nothing_of_ours(script: Path) -> None:
    tree = ast.parse(script.read_text(), feature_version=(3, 9))
    for node in ast.walk(tree):
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
        assert {one.partition(".")[0] for one in names} <= sys.stdlib_module_names


def measured(parcel: Parcel, **request: Any) -> dict[str, Any]:
    return run_here(parcel, {"inputs": {"seed": 0}, **request})


def test_the_runner_draws_what_we_draw_and_gives_the_outputs(
    artifact: Artifact, tmp_path: Path
) -> None:
    path = tmp_path / "outputs.npz"
    found = measured(parcel_of(artifact.path, "onnxruntime"), outputs=str(path))
    assert found["device"]["machine"]
    (x,) = random_inputs([SimpleNamespace(shape=(1, 16), dtype="float32")])  # type: ignore[list-item]
    with np.load(path) as outputs:
        np.testing.assert_array_equal(outputs["0.0"], expected(artifact, x))


def test_given_inputs_are_taken_only_with_their_hash(artifact: Artifact, tmp_path: Path) -> None:
    path, x = tmp_path / "inputs.npz", drawn(1)
    np.savez(path, x=x)
    parcel = parcel_of(artifact.path, "onnxruntime")
    inputs = {"file": str(path), "sha256": sha256(path)}
    outputs = tmp_path / "outputs.npz"
    measured(parcel, inputs=inputs, outputs=str(outputs))
    with np.load(outputs) as found:
        np.testing.assert_array_equal(found["0.0"], expected(artifact, x))
    with pytest.raises(MachineError, match="the inputs have changed on the device"):
        measured(parcel, inputs=inputs | {"sha256": "0" * 64})


@pytest.mark.parametrize(
    ("sha256", "runtime", "text"),
    [
        ("0" * 64, "onnxruntime", "sha256 .*, wanted 000000000000"),
        (None, "tensorrt", "the runner doesn't know tensorrt"),
    ],
)
def test_what_the_runner_refuses(
    sha256: str | None, runtime: str, text: str, artifact: Artifact
) -> None:
    good = parcel_of(artifact.path, "onnxruntime")
    with pytest.raises(MachineError, match=text):
        measured(Parcel(good.paths, good.names, sha256 or good.sha256, runtime))


def test_a_file_that_cannot_be_loaded_or_run_is_one_line(
    artifact: Artifact, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(artifact.path.read_bytes()[:100])
    with pytest.raises(MachineError, match=r"broken\.onnx .* failed: onnxruntime can't load it"):
        peak_process_bytes(broken, drawn(0))
    with pytest.raises(MachineError, match="it fails on these inputs") as error:
        peak_process_bytes(artifact.path, np.zeros((1, 3), "float32"))
    assert "\n" not in str(error.value)


def test_artifacts_with_other_inputs_are_not_timed_together(artifact: Artifact) -> None:
    one = {"runtime": "onnxruntime", "sha256": artifact.sha256, "files": [str(artifact.path)]}
    request = {"artifacts": [one, one], "threads": 1, "inputs": {"seed": 0}}
    shapes = iter([(1, 16), (1, 17)])
    loaded = runner.RUNTIMES["onnxruntime"]
    other = (lambda *_: SimpleNamespace(inputs=[("x", next(shapes), "float32")]), *loaded[1:])
    runner.RUNTIMES["onnxruntime"] = other  # type: ignore[assignment]
    try:
        with pytest.raises(runner.Refused, match=r"inputs differ: .*16.*17"):
            runner.measure(request)
    finally:
        runner.RUNTIMES["onnxruntime"] = loaded


def test_openvino_in_the_runner_gives_the_same(artifact: Artifact, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    path = tmp_path / "model.xml"
    openvino.save_model(openvino.convert_model(artifact.path), path, compress_to_fp16=False)
    outputs = tmp_path / "outputs.npz"
    x = np.concatenate([drawn(1), drawn(2)])
    np.savez(tmp_path / "inputs.npz", x=x)
    given = {"file": str(tmp_path / "inputs.npz"), "sha256": sha256(tmp_path / "inputs.npz")}
    measured(parcel_of(path, "openvino"), inputs=given, outputs=str(outputs))
    with np.load(outputs) as found:
        np.testing.assert_allclose(found["0.0"], expected(artifact, x), rtol=1e-5, atol=1e-5)


def test_a_device_that_ssh_reaches_has_a_runtime_that_the_runner_loads() -> None:
    for target in described().values():
        if target.reach == "ssh":
            assert set(target.runtimes) & set(runner.RUNTIMES)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "penjing"


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "model.py", "model.onnx\n", "", 3])
def test_the_agent_takes_no_name_but_its_own(name: object, store: Path) -> None:
    with pytest.raises(agent.Refused, match="the agent doesn't accept this name"):
        agent.put({"artifacts": [{"names": [name], "sizes": [0], "sha256": "0" * 64}]})
    with pytest.raises(agent.Refused, match="the agent doesn't accept this name"):
        agent.have({"artifacts": [{"names": ["model.onnx"], "sha256": name}]})
    with pytest.raises(agent.Refused, match="the agent doesn't accept this name"):
        agent.forget({"nonce": name})


def test_what_arrives_damaged_or_in_part_is_not_kept(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = {"names": ["model.onnx"], "sizes": [5], "sha256": "0" * 64}
    for content, text in ((b"12345", "arrived damaged"), (b"123", "in the middle of an artifact")):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
        with pytest.raises(agent.Refused, match=text):
            agent.put({"artifacts": [one]})
        assert list((store / "files").iterdir()) == []
    assert agent.have({"artifacts": [one]}) == ["0" * 64]
