"""A device over SSH, against an `sshd` of our own on loopback: right figures, whatever happens."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from typer.testing import CliRunner

from penjing.cli.app import app
from penjing.contract import Artifact, Latency
from penjing.device import job
from penjing.device.address import Device
from penjing.device.protocol import reply_in
from penjing.device.runner import RUNTIMES
from penjing.errors import InputError, RemoteError, RemoteFileError, UnsafeError
from penjing.files import sha256
from penjing.measure import there
from penjing.measure.memory import peak_process_bytes
from penjing.measure.there import JobOptions, look_at, measure_there
from penjing.targets import this_machine
from penjing.tools.bench import bench_there
from penjing.trials.evaluation.evaluator import FileEvaluator
from penjing.trials.evaluation.files import Files, Loaded
from penjing.trials.result import Result
from penjing.trials.trial import Trial
from tests.fits import fit, trial
from tests.loopback import (
    TWICE,
    Loopback,
    drawn,
    expected,
    needs_server,
    python_with,
)
from tests.reference_networks import self_taught

pytestmark = pytest.mark.alone


@needs_server
def test_figures_and_outputs_of_the_device_are_those_of_here(
    loopback: Loopback, artifact: Artifact
) -> None:
    x = np.concatenate([drawn(1), drawn(2)])
    found = measure_there(
        loopback.device(), {"a": artifact}, x, options=JobOptions(seconds=0, outputs=True)
    )
    np.testing.assert_array_equal(found.outputs["a"][0], expected(artifact, x))
    one = found.measurements["a"]
    assert one.file_bytes == artifact.file_bytes
    assert one.latency is None
    assert one.notes == (f"onnxruntime {onnxruntime.__version__}",)
    left = [path.name for path in (loopback.folder / "cache").iterdir()]
    assert left == ["penjing"]  # and no runtime's identifier of the device
    here = peak_process_bytes(artifact.path, x)
    if here is not None:
        assert one.peak_process_bytes is not None
        assert abs(one.peak_process_bytes - here) < 0.05 * here


HOSTILE = (
    b"; touch penjing-canary", b"$(touch penjing-canary)", b"`touch penjing-canary`",
    b"a\ntouch penjing-canary\n", b"-oProxyCommand=touch penjing-canary",
    b"' touch penjing-canary '", b"\xff\xfe not utf-8", b"the longest",
)  # fmt: skip


@needs_server
def test_hostile_names_are_only_names(
    loopback: Loopback, artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = tmp_path / "device"
    device.mkdir()
    monkeypatch.chdir(tmp_path)
    paths = [Path(os.fsdecode(one + b".onnx")) for one in HOSTILE]
    paths[-1] = Path("[bold]" + "x" * (255 - len("[bold].onnx")) + ".onnx")
    for path in paths:
        path.write_bytes(artifact.path.read_bytes())
    found = bench_there(loopback.device(python_with(device, TWICE)), paths, seconds=0.05)
    assert len(found.times) == len(HOSTILE)
    assert all(one.windows >= 15 and one.latency_ms > 0 for one in found.times.values())
    assert not [one for one in (tmp_path, Path.home()) if (one / "penjing-canary").exists()]
    assert "canary" not in " ".join(str(one) for one in loopback.store.rglob("*"))


@needs_server
def test_bench_on_the_command_line(loopback: Loopback, artifact: Artifact) -> None:
    device = loopback.device()
    arguments = [
        "bench", str(artifact.path), str(artifact.path), "--target", device.address,
        "--seconds", "0.1", "--python", sys.executable, "--ssh-config", str(device.ssh_config),
    ]  # fmt: skip
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.exception
    rows = json.loads(done.stdout)
    assert list(rows) == [str(artifact.path), f"{artifact.path} (again)"]
    for row in rows.values():
        assert row["windows"] >= 15
        assert device.address in row["device"]
        assert any(one.startswith("CPU governor: ") for one in row["notes"])
        assert row["peak_process_bytes"] > 10**7


@needs_server
def test_a_fit_for_a_device_is_timed_there(loopback: Loopback, tmp_path: Path) -> None:
    device, out = loopback.device(), tmp_path / "fitted"
    arguments = [
        "fit", "digits", "--target", device.address, "--epochs", "0.5", "--out", str(out),
        "--python", sys.executable, "--ssh-config", str(device.ssh_config),
    ]  # fmt: skip
    jobs: list[tuple[Any, ...]] = []

    def run_job(*given: Any) -> job.Done:
        jobs.append(given)
        return job.run_job(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(there, "run_job", run_job)
        patch.setattr("penjing.search.ways.installed", lambda: ["onnxruntime"])
        patch.setattr("penjing.search.strategies.cutting.CUTS", ())
        done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.exception
    found = Result.load(out)
    assert found.finished
    assert found.target == device.address
    assert device.address in found.machine
    timed = [one for one in found.everything if one.measurement.latency is not None]
    assert len(timed) > 1
    assert {one.measurement.latency.windows >= 15 for one in timed} == {True}  # type: ignore[union-attr]
    brought = {parcel.sha256 for _, parcels, _, _ in jobs for parcel in parcels}
    assert {one.sha256 for one in found.everything if one.measurement.score} <= brought
    assert any(one.startswith("there: onnxruntime ") for one in found.notes)
    last = found.notes[-1]
    assert last.startswith(f"on the device {found.chosen} differs from its network by at most ")
    assert last.endswith(" decisions are the same")


@pytest.mark.parametrize(
    ("said", "error", "text"),
    [
        (
            {"runtimes": dict.fromkeys(RUNTIMES)},
            InputError,
            "python3 on the device has none of onnxruntime",
        ),
        ({"runtimes": {}}, RemoteError, "the result is malformed"),
        ({"cores": "many"}, RemoteError, "the result is malformed"),
    ],
)
def test_a_device_that_has_nothing_or_tells_nothing_is_refused(
    said: dict[str, Any],
    error: type[Exception],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    told = {"name": "a board", "machine": "aarch64", "cores": 4, "memory_kb": 10**6} | said
    done = job.Done(({"device": {"runtimes": dict.fromkeys(RUNTIMES, "1.0")} | told},), None)
    monkeypatch.setattr(there, "run_job", lambda *_: done)
    with pytest.raises(error, match=text):
        look_at(Device.at("ssh://pi@device"))
    given = ["fit", "digits", "--target", "ssh://pi@device", "--out", str(tmp_path / "out")]
    assert isinstance(CliRunner().invoke(app, given).exception, error)
    assert not (tmp_path / "out").exists()


def played(device: Device, _: Any, parts: dict[str, dict[str, Any]], __: float) -> job.Done:
    """What a device would tell on which each file takes a tenth longer than the one before."""
    told = {"name": "a board", "machine": "aarch64", "cores": 4, "memory_kb": 10**6}
    told |= {"runtimes": {one: "1.0" if one == "onnxruntime" else None for one in RUNTIMES}}

    def reply(part: dict[str, Any]) -> dict[str, Any]:
        count = len(part["artifacts"])
        lists = {str(k): [1e-3 * 1.1**k] * 20 for k in range(count)}
        times = {k: {"windows": one, "samples": one} for k, one in lists.items()}
        timed = {"times": times, "disturbed": False} if part["seconds"] else {}
        return {"device": told, "versions": ["1.0"] * count, "peak_process_bytes": 10**6, **timed}

    return job.Done(tuple(map(reply, parts.values())), None)


def test_a_fit_whose_device_is_lost_keeps_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lossy(device: Device, parcels: Any, parts: Any, deadline_s: float) -> job.Done:
        if "int8" in parts:
            raise RemoteError("the device: lost")
        return played(device, parcels, parts, deadline_s)

    monkeypatch.setattr(there, "run_job", lossy)
    with pytest.raises(RemoteError, match="lost; finished work is kept; continue with `resume`"):
        fit(self_taught(), "ssh://pi@device", 10.0, epochs=1, out=tmp_path)
    found = Result.load(tmp_path)
    assert found.baseline.measurement.latency is not None
    assert not found.trials  # none is blamed for it


def test_a_file_that_the_device_cannot_load_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = ("prune 50 %", "prune 50 % + int8", "prune 25 %")

    def choosy(device: Device, parcels: Any, parts: Any, deadline_s: float) -> job.Done:
        for one in refused:
            if one in parts:
                raise RemoteFileError(f"{device.address}: {one}: can't load it", one)
        return played(device, parcels, parts, deadline_s)

    monkeypatch.setattr(there, "run_job", choosy)
    found = fit(self_taught(), "ssh://pi@device", 10.0, epochs=1, out=tmp_path)
    assert found.finished
    assert {found.find(one).status for one in refused} == {"failed"}
    assert all(found.find(one).reason.endswith(f"{one}: can't load it") for one in refused)
    assert found.find("prune 25 % + int8").reason == "prune 25 % failed"
    assert all(found.find(one).latency for one in ("int8", "prune 25 % + int8", "prune 75 %"))
    assert "couldn't be compared on the device" in found.notes[-1]  # it brings no outputs


def test_what_a_device_cannot_hold_at_once_is_timed_one_by_one() -> None:
    class Unread(Files):
        def loaded(self, trial: Trial) -> Loaded:
            return Loaded(trial.key, trial.title, None, None)  # type: ignore[arg-type]

        def loaded_original(self) -> Loaded:
            return Loaded("0", "original", None, None)  # type: ignore[arg-type]

    class Small(FileEvaluator):
        def _times(self, files: Any, seconds: float) -> dict[str, Latency]:
            names = [file.title for file in files[1:]]
            if len(names) > 1:
                raise RemoteFileError("the device: its memory has run out", "all together")
            if "c" in names:
                raise RemoteFileError("the device: c: can't load it", "c")
            return {file.key: Latency(seconds, seconds, 1, 1, 1, 1) for file in files[1:]}

    trials = {title: trial(title) for title in "abc"}
    evaluator = object.__new__(Small)
    evaluator.files = Unread(Path(), None, this_machine())  # type: ignore[arg-type]
    sitting = evaluator.time(list(trials.values()), 6.0)
    seconds = {key: latency.latency_ms for key, latency in sitting.times.items()}
    assert seconds == {trials["a"].key: 2.0, trials["b"].key: 2.0}
    assert sitting.refused == {trials["c"].key: "the device: c: can't load it"}


def test_what_is_for_a_device_is_refused_without_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="only apply to a remote device, but the target is cpu"):
        fit("digits", "cpu", out=tmp_path / "out", python="python3.12")
    assert not (tmp_path / "out").exists()
    done = CliRunner().invoke(app, ["bench", "a.onnx", "--python", "python3.12"])
    assert isinstance(done.exception, InputError)
    assert "only apply to a remote device, but the target is cpu" in str(done.exception)


@needs_server
def test_a_damaged_artifact_on_the_device_is_brought_again(
    loopback: Loopback, artifact: Artifact, tmp_path: Path
) -> None:
    folder = loopback.store / "files" / artifact.sha256
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(b"damaged")
    measure_there(
        loopback.device(python_with(tmp_path, TWICE)),
        {"a": artifact},
        options=JobOptions(seconds=0),
    )
    assert sha256(folder / "model.onnx") == artifact.sha256


@needs_server
def test_the_file_that_a_device_cannot_load_is_named(
    loopback: Loopback, artifact: Artifact, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.onnx"
    model = onnx.load(artifact.path)
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(model, broken)
    with pytest.raises(RemoteError, match=r"broken\.onnx: onnxruntime can't load it") as error:
        bench_there(loopback.device(), [artifact.path, broken], seconds=0.1)
    assert "\n" not in str(error.value)


@needs_server
def test_a_host_key_that_is_unknown_or_has_changed_is_refused(
    loopback: Loopback, artifact: Artifact
) -> None:
    loopback.make_key("other_key")
    try:
        loopback.trust("other_key")
        with pytest.raises(RemoteError, match="its host key has changed; refused") as error:
            measure_there(loopback.device(), {"a": artifact}, options=JobOptions(seconds=0))
        assert error.value.exit_code == 5
        assert "\n" not in str(error.value)
        (loopback.folder / "known_hosts").write_text("")
        with pytest.raises(RemoteError, match="its host key isn't known; connect once with ssh"):
            measure_there(loopback.device(), {"a": artifact}, options=JobOptions(seconds=0))
    finally:
        loopback.trust("host_key")


@needs_server
def test_a_device_that_is_not_there_or_refuses_the_key(
    loopback: Loopback, artifact: Artifact, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text("")
    nobody = Device.at("ssh://127.0.0.1:9", ssh_config=config)
    with pytest.raises(RemoteError, match=r"ssh://127\.0\.0\.1:9: can't be reached: .*refused"):
        measure_there(nobody, {"a": artifact}, options=JobOptions(seconds=0))
    known = loopback.folder / "known_hosts"
    config.write_text(f"UserKnownHostsFile {known}\nIdentityFile none\nIdentityAgent none\n")
    stranger = Device.at(loopback.device().address, ssh_config=config)
    with pytest.raises(RemoteError, match="it refused the key"):
        measure_there(stranger, {"a": artifact}, options=JobOptions(seconds=0))


@needs_server
def test_a_device_without_python_or_with_an_old_one(
    loopback: Loopback, artifact: Artifact, tmp_path: Path
) -> None:
    with pytest.raises(RemoteError, match=r"no /nowhere/python3; install Python 3\.9"):
        measure_there(
            loopback.device("/nowhere/python3"), {"a": artifact}, options=JobOptions(seconds=0)
        )
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\necho it is Python 3.6 >&2\nexit 1\n")
    old.chmod(0o755)
    with pytest.raises(RemoteError, match=r"too old on the device: it is Python 3\.6, wanted 3\.9"):
        measure_there(loopback.device(str(old)), {"a": artifact}, options=JobOptions(seconds=0))


def test_only_the_reply_to_this_request_counts() -> None:
    reply = b'welcome\npenjing-reply old {"ok": 1}\npenjing-reply new {"ok": 2}\n'
    assert reply_in(reply, "new") == {"ok": 2}
    assert reply_in(reply, "newer") is None
    assert reply_in(reply[:-4], "new") is None
    assert reply_in(b"penjing-reply new [1]\n", "new") is None


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({"nonce": "0" * 32, "ok": [{}, {}]}, "the result is of another job"),
        ({"ok": [{}]}, "the result is malformed"),
        ({"ok": [{}, {"device": {}}]}, "the result is malformed"),
    ],
)
def test_a_stale_or_malformed_result_is_refused(
    result: dict[str, Any], text: str, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(_: Device, request: dict[str, Any], *__: Any, **___: Any) -> Any:
        if request["do"] == "run":
            ok = result["ok"] + [{}] * (2 - len(result["ok"]))
            return {"nonce": request["nonce"], **result, "ok": ok}
        return []

    monkeypatch.setattr(job, "call", call)
    with pytest.raises(RemoteError, match=text):
        measure_there(Device.at("ssh://pi@device"), {"a": artifact}, options=JobOptions(seconds=0))


def test_a_file_that_has_changed_is_not_measured(artifact: Artifact) -> None:
    other = Artifact(artifact.path, "onnxruntime", 1, "0" * 64)
    with pytest.raises(UnsafeError, match="has changed: sha256"):
        measure_there(Device.at("ssh://pi@device"), {"a": other})


@pytest.mark.parametrize(
    "address",
    ["ssh://-oProxyCommand=x@host", "ssh://-host", "ssh://a b", "ssh://host;rm", "ssh://$(x)@host",
     "ssh://host:0", "ssh://host:70000", "ssh://host\n", "ssh://", "ssh://host/path", "host"],
)  # fmt: skip
def test_an_address_that_cannot_be_meant(address: str) -> None:
    with pytest.raises(InputError, match="isn't the address of a device; wanted ssh://user@host"):
        Device.at(address)


@pytest.mark.parametrize("python", ["-c", "python3; rm", "$(x)", "", "a'b", "python3\n"])
def test_an_interpreter_that_cannot_be_meant(python: str) -> None:
    with pytest.raises(InputError, match="isn't the path of an interpreter"):
        Device.at("ssh://host", python)


def test_the_command_holds_nothing_of_the_user() -> None:
    *_, dashes, host, remote = Device.at("ssh://ann@[::1]:2222").command("true")
    assert (dashes, host, remote) == ("--", "::1", "true")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--target", "ssh://a b"), 2, "isn't the address of a device"),
        (("--target", "raspberry-pi-5"), 2, "only a description of target 'raspberry-pi-5'"),
        (("--target", "ssh://pi@device", "--ssh-config", "absent"), 2, "absent doesn't exist"),
    ],
)
def test_bad_targets_of_bench_are_one_line(
    arguments: tuple[str, ...], code: int, text: str, artifact: Artifact
) -> None:
    done = CliRunner().invoke(app, ["bench", str(artifact.path), *arguments])
    assert isinstance(done.exception, InputError)
    assert done.exception.exit_code == code
    assert text in str(done.exception)


def test_files_that_no_device_takes_are_named(tmp_path: Path) -> None:
    device = Device.at("ssh://pi@device")
    with pytest.raises(InputError, match=r"file .*absent\.onnx doesn't exist"):
        bench_there(device, [tmp_path / "absent.onnx"])
    with pytest.raises(InputError, match=r"no runtime on a device loads .*x\.pt; its name"):
        bench_there(device, [tmp_path / "x.pt"])
