"""Files of others run in a process of their own first; what breaks it is refused in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from penjing.contract import Json
from penjing.errors import InputError, PenjingError, UnsafeError
from penjing.files import sha256
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.runtimes.onnx.scan import MOST_TENSORS, require_plain
from penjing.runtimes.registry import ENTRIES
from penjing.tools import quarantine
from penjing.tools.bench import bench
from penjing.tools.export import verify
from penjing.tools.inputs import open_file
from penjing.tools.profile import profile_file
from penjing.tools.quarantine import Limits, admitted
from tests.fuzz_files import RUNTIMES, fuzz
from tests.hostile_files import LOW, MAKERS, SHORT, endless, huge_value, sound
from tests.reference_networks import self_taught


@pytest.fixture(scope="module", autouse=True)
def child() -> Iterator[None]:
    """The process that tries files is there until all tests are done."""
    yield
    quarantine.close()


@pytest.fixture(autouse=True)
def low(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "USUAL", LOW)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


@pytest.mark.parametrize("what", MAKERS)
def test_a_hostile_file_is_refused_in_one_line(
    what: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = MAKERS[what](folder)
    if MAKERS[what] is endless:
        monkeypatch.setattr(quarantine, "USUAL", SHORT)
    with pytest.raises(UnsafeError, match=r"made\.onnx: .*refused") as refused:
        bench([path], seconds=0.1)
    assert refused.value.exit_code == 3
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("make", "limits", "why"),
    [
        (endless, SHORT, "it didn't finish within 1 s"),
        (huge_value, LOW, r"it needs more than 1\.0 GiB"),
    ],
)
@pytest.mark.parametrize("use", [profile_file, lambda path: verify(path, self_taught())])
def test_profile_and_verify_refuse_it_too(
    use: Callable[[Path], Any], make: Callable[[Path], Path], limits: Limits, why: str,
    folder: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(quarantine, "USUAL", limits)
    with pytest.raises(UnsafeError, match=rf"made\.onnx: {why}.*; refused"):
        use(make(folder))


@pytest.mark.parametrize("name", RUNTIMES)
def test_changed_bytes_run_or_are_refused(name: str) -> None:
    if ENTRIES[name].absent:
        pytest.skip(f"{name} isn't installed")
    assert fuzz(name, runs=8).total() == 8


def test_a_process_that_dies_is_told_by_its_signal(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the next file gets a new one."""
    path = sound(folder)
    dies = [
        sys.executable,
        "-c",
        "import os; input(); print('{\"ready\": true}', flush=True); os.abort()",
    ]
    quarantine.close()
    start = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda _, **rest: start(dies, **rest))
    with pytest.raises(UnsafeError, match=r"made\.onnx: the runtime crashed on it \(signal 6\)"):
        open_file(path)
    monkeypatch.undo()
    assert open_file(path).inputs[0].shape == (1, 4)


def test_a_child_that_goes_on_for_ever_is_gone(folder: Path) -> None:
    with (
        pytest.raises(UnsafeError, match="it didn't finish within 1 s"),
        admitted(endless(folder), OnnxRuntime(), SHORT),
    ):
        pass
    assert not quarantine._children


def test_the_bytes_that_passed_are_the_ones_that_are_used(folder: Path) -> None:
    """Who changes the file behind the child's back changes nothing."""
    path = sound(folder)
    with admitted(path, OnnxRuntime(), whole=True) as artifact:
        passed = sha256(path)
        path.write_bytes(b"changed")
        assert artifact.path != path
        assert artifact.sha256 == passed
        session = OnnxRuntime().load(artifact)
    x = np.ones((1, 4), np.float32)
    assert np.array_equal(session.run(x), x + 1)
    assert not artifact.path.exists()


def test_only_files_of_others_are_tried(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sound(folder)
    tried = []
    monkeypatch.setattr(quarantine, "_try_out", lambda request: tried.append(request["name"]))
    record = {"file": path.name, "sha256": sha256(path), "runtime": "onnxruntime"}
    (folder / "export.json").write_text(json.dumps(record))
    open_file(path)
    assert not tried
    changed = record | {"sha256": "0" * 64}, record | {"file": "other.onnx"}
    others: tuple[Json, ...] = (*changed, [], {"file": 7})
    for other in others:
        (folder / "export.json").write_text(json.dumps(other))
        open_file(path)
    (folder / "export.json").unlink()
    open_file(path)
    assert tried == [os.fspath(path)] * 5


def test_no_module_beside_the_file_is_imported(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as an onnxruntime.py in the folder where penjing is called."""
    path = sound(folder)
    for name in ("onnxruntime", "json", "penjing"):
        (folder / f"{name}.py").write_text("import pathlib; pathlib.Path('canary').touch()")
    monkeypatch.chdir(folder)
    assert open_file(path)
    assert not (folder / "canary").exists()


@pytest.mark.parametrize(
    "record",
    [
        b"[" * 100_000,
        b"\xff",
        b'{"file": "m", "file": "n"}',
        b'{"file": NaN}',
        b"[]",
        b'{"file": 1}',
    ],
)  # fmt: skip
def test_a_record_is_read_as_what_anybody_may_have_written(record: bytes, folder: Path) -> None:
    path = sound(folder)
    (folder / "export.json").write_bytes(record)
    with pytest.raises(PenjingError, match=r"export\.json") as refused:
        verify(path, self_taught())
    assert "\n" not in str(refused.value)


def test_a_scan_counts_what_is_in_every_corner() -> None:
    """Tensors of sparse ones, of attributes and of functions; and what is no protobuf."""
    tensor = numpy_helper.from_array(np.ones(2, np.float32), "w")
    outside = onnx.TensorProto(
        name="w", data_type=1, dims=[2], data_location=onnx.TensorProto.EXTERNAL
    )
    outside.external_data.add(key="location", value="elsewhere")

    def model(held: onnx.TensorProto) -> list[onnx.ModelProto]:
        constant = helper.make_node("Constant", [], ["w"], value=held)
        listed = helper.make_node("Own", [], ["w"], values=[held])
        function = helper.make_function("own", "F", [], ["w"], [constant], [])
        graph = helper.make_graph([constant], "g", [], [])
        branch = helper.make_graph(
            [helper.make_node("If", ["c"], ["w"], then_branch=graph)], "h", [], []
        )
        sparse = onnx.SparseTensorProto(values=held, dims=[4])
        return [
            helper.make_model(graph),
            helper.make_model(branch),
            helper.make_model(helper.make_graph([listed], "g", [], [])),
            helper.make_model(helper.make_graph([], "g", [], [], [held])),
            helper.make_model(helper.make_graph([], "g", [], [], sparse_initializer=[sparse])),
            helper.make_model(helper.make_graph([], "g", [], []), functions=[function]),
        ]

    for one in model(tensor):
        require_plain(one.SerializeToString())
    for one in model(outside):
        with pytest.raises(UnsafeError, match="some of its weights are in other files"):
            require_plain(one.SerializeToString())
    crowd = [onnx.TensorProto(name="c")] * (MOST_TENSORS + 1)
    graph = helper.make_graph([], "g", [], [], crowd)
    with pytest.raises(UnsafeError, match=f"more than {MOST_TENSORS} tensors"):
        require_plain(helper.make_model(graph).SerializeToString())
    whole = model(tensor)[0].SerializeToString()
    for cut in (whole[:-1], b"\x0b", b"\x80" * 20, b"PK\x03\x04" + bytes(40)):
        with pytest.raises(InputError, match="it isn't an ONNX model"):
            require_plain(cut)
