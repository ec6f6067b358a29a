"""The folder of a fit: at any moment whole, held by one fit, and shared with the user's files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from penjing.cli.fit import what_is_there
from penjing.contract import Drop, Measurement
from penjing.errors import DiskError, InputError, MachineError, PenjingError
from penjing.files import require_writable_folder, write_atomically
from penjing.network import capture
from penjing.passes import Tune
from penjing.runtimes.registry import ENTRIES
from penjing.search.folder import (
    DELIVERED,
    LOCK,
    OF_CANDIDATES,
    OF_EARLIER_ONES,
    _lock,
    names_of_artifacts,
)
from penjing.search.identity import identity
from penjing.search.study import Study
from penjing.targets import find_target
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task
from penjing.trials.evaluation.files import CANDIDATES, STEM
from penjing.trials.evaluation.networks import NETWORKS, Networks
from penjing.trials.ledger import LEDGER, Ledger
from penjing.trials.result import FORMAT, REPORT, Result
from penjing.tune.options import TuneOptions
from tests.fits import fit, trial

X, Y = torch.arange(64.0).reshape(16, 4) % 7, torch.arange(16) % 3


def _task(**changes: Any) -> Task:
    torch.manual_seed(0)
    data = Arrays(X, Y, batch_size=4)
    values: dict[str, Any] = {"model": nn.Linear(4, 3), "example": X[:2], "name": "small"}
    return Task(**values | {"train": data, "validation": data, "test": data} | changes)


class Scripted:
    """A search that leaves files as a real one does, and measures nothing."""

    content = "first"
    during: Callable[[Path], None] = staticmethod(lambda _: None)
    runs = 0

    def __init__(self, study: Study, *_: Any) -> None:
        self.ledger = study.ledger

    @property
    def result(self) -> Result:
        return self.ledger.result

    def run(self) -> None:
        Scripted.runs += 1
        network = self.ledger.folder / NETWORKS / "0123456789ab"
        if (network / "network.json").exists():  # a real one would take it over
            assert (network / "network.json").read_text() == self.content
        self._make("original", "baseline", 100)
        Scripted.during(self.ledger.folder)
        self._make("int8", "kept", 50)
        require_writable_folder(network)
        write_atomically(network / "weights.safetensors", self.content)
        write_atomically(network / "network.json", self.content)
        self._make("prune 25 %", "kept", 70)
        self.ledger.finish(self.result)

    def _make(self, title: str, status: str, size: int) -> None:
        path = self.ledger.folder / CANDIDATES / title.replace(" %", "") / f"{STEM}.onnx"
        require_writable_folder(path.parent)
        write_atomically(path, f"{title}, {self.content}")
        figures = Measurement(file_bytes=size, drop=Drop(0.0, 0.0, 0.95, 100))
        place = str(path.relative_to(self.ledger.folder))
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        self.ledger.record(trial(title, (), status, "", figures, artifact=place, sha256=sha256))
        self.ledger.publish()


@pytest.fixture(autouse=True)
def _scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    network = capture(nn.Linear(4, 3), X[:2])
    monkeypatch.setattr("penjing.search.fit.Run", Scripted)
    monkeypatch.setattr("penjing.search.fit.capture", lambda *_, **__: network)
    monkeypatch.setattr("penjing.search.fit._versions", lambda: {"penjing": "1"})
    monkeypatch.setattr(Scripted, "runs", 0)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # which a disk may take its time for


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What each of a thousand fits would ask of the machine, asked once."""
    target, endings = find_target("cpu"), [".onnx", ".tflite"]
    monkeypatch.setattr("penjing.search.fit.find_target", lambda _: target)
    monkeypatch.setattr("penjing.search.fit._endings", lambda _: endings)


def _report(result: Result, folder: Path) -> None:
    write_atomically(folder / "report.md", result.chosen)
    write_atomically(folder / "plot.png", b"plot")
    write_atomically(folder / "report.html", result.chosen)


def _fit(out: Path, **options: Any) -> Result:
    return fit(options.pop("task", _task()), goal="size", out=out, report=_report, **options)


def _tree(folder: Path) -> dict[str, bytes | None]:
    """All that lies in a folder: the files' contents by their names, and the folders'."""
    return {
        str(one.relative_to(folder)): one.read_bytes() if one.is_file() else None
        for one in folder.rglob("*")
    }


def _require_true(out: Path) -> None:
    """What `result.json` says of files is so, if there is one."""
    if not (out / "result.json").exists():
        return
    result = Result.load(out)
    for one in result.everything:
        if one.artifact is not None:
            found = hashlib.sha256((out / one.artifact).read_bytes()).hexdigest()
            assert found == one.sha256
    if result.artifact is not None:
        found = hashlib.sha256((out / result.artifact).read_bytes()).hexdigest()
        assert found == result.answer.sha256


APPEND = Ledger._append
OPERATIONS = ("open", "replace", "unlink", "mkdir", "rmdir")


def _error(call: Callable[[], Any]) -> str:
    """The line in which it ends, for want of something of the machine; empty if it ends well."""
    try:
        call()
    except MachineError as error:
        return str(error)
    return ""


class Killed(BaseException):
    """Nothing of the process runs any more."""


@dataclass
class Disk:
    """Counts operations that change files. From `stop` on each raises `error`, if it is one of
    those that `fail`; only that one, if it happens `once`."""

    stop: int = 10**9
    error: Callable[[], BaseException] = OSError
    once: bool = False
    fail: tuple[str, ...] = OPERATIONS
    count: int = 0

    def wrap(self, name: str) -> Callable[..., Any]:
        operation = getattr(os, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            if name != "open" or args[1] & os.O_CREAT:
                self.count_one(name)
            return operation(*args, **kwargs)

        return counted

    def count_one(self, name: str) -> None:
        self.count += 1
        over = self.count == self.stop if self.once else self.count >= self.stop
        if over and name in self.fail:
            raise self.error()

    def append(self, ledger: Ledger, *event: Any) -> None:
        """SQLite changes its file past this Python."""
        try:
            self.count_one("replace")
        except OSError as error:
            raise DiskError(f"{ledger.folder} can't be written: {error.strerror}; stop") from error
        APPEND(ledger, *event)


@contextlib.contextmanager
def _disk(*args: Any) -> Iterator[Disk]:
    disk = Disk(*args)
    with pytest.MonkeyPatch.context() as patch:
        for name in OPERATIONS:
            patch.setattr(os, name, disk.wrap(name))
        patch.setattr(Ledger, "_append", lambda ledger, *event: disk.append(ledger, *event))
        yield disk


STARTS = ("nothing", "a finished fit", "a killed fit")
OTHERS = {"notes.txt": b"mine", "model.pt": b"mine", "candidates/int8/model.pt": b"mine"}


def _start(out: Path, start: str) -> dict[str, bool]:
    """Prepare a folder; the options with which a fit goes on there."""
    if start == "nothing":
        return {}
    if start == "a finished fit":
        _fit(out)
    else:
        with _disk(35, Killed), pytest.raises(Killed):
            _fit(out)
        assert not Result.load(out).finished
    (out / "models").mkdir()
    (out / "candidates" / "int8").mkdir(exist_ok=True)
    for name, content in OTHERS.items():
        (out / name).write_bytes(content)
    return {"overwrite": True} if start == "a finished fit" else {"resume": True}


def _points(tmp_path: Path, start: str) -> int:
    options = _start(tmp_path / "whole", start)
    with _disk() as disk:
        _fit(tmp_path / "whole", **options)
    assert disk.count > 30
    return disk.count


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("option", ["resume", "overwrite"])
@pytest.mark.parametrize("start", STARTS)
def test_a_kill_before_any_change_of_the_disk_leaves_a_folder_that_both_options_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str, option: str
) -> None:
    wanted: set[str] = set()
    for k in range(1, _points(tmp_path, start) + 1):
        out = tmp_path / str(k)
        monkeypatch.setattr(Scripted, "content", "first")
        options = _start(out, start)
        if "overwrite" in options:
            monkeypatch.setattr(Scripted, "content", "second")
        with _disk(k, Killed), pytest.raises(Killed):
            _fit(out, **options)
        _require_true(out)
        result = _fit(out, **{option: True})
        assert result.finished
        _require_true(out)
        tree = _tree(out)
        for name, content in OTHERS.items() if start != "nothing" else ():
            assert tree.pop(name) == content
        if Scripted.content.encode() in (tree["model.onnx"] or b""):  # else the finished one stands
            assert set(tree) == (wanted or set(tree))  # nothing is left over, and nothing lacks
            wanted = set(tree)
        assert LOCK not in tree


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("once", [True, False], ids=["once", "from then on"])
@pytest.mark.parametrize("start", STARTS)
def test_a_full_disk_at_any_point_is_one_line_and_resume_goes_on(
    tmp_path: Path, start: str, once: bool
) -> None:
    failed = 0

    def full() -> OSError:
        return OSError(errno.ENOSPC, "No space left on device", "a file")

    for k in range(1, _points(tmp_path, start) + 1):
        out = tmp_path / str(k)
        options = _start(out, start)
        with _disk(k, full, once, ("open", "mkdir", "replace")):
            error = _error(partial(_fit, out, **options))
        if error:  # else only what needs no space was left to do
            failed += 1
            assert re.fullmatch(r".* can't be .*: No space left on device; .*", error)
        _require_true(out)
        assert _fit(out, resume=True).finished
        _require_true(out)
    assert failed > 20


def test_the_record_is_there_before_the_first_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(search: Scripted) -> None:
        assert Result.load(tmp_path / "out").identity
        raise KeyboardInterrupt

    monkeypatch.setattr(Scripted, "run", measure)
    with pytest.raises(KeyboardInterrupt):
        _fit(tmp_path / "out")
    monkeypatch.undo()
    assert Result.load(tmp_path / "out").baseline.artifact is None


def test_what_an_interrupted_resume_would_lose_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _disk(35, Killed), pytest.raises(Killed):
        _fit(tmp_path / "out")
    before = Result.load(tmp_path / "out")
    assert before.trials

    def interrupted(search: Scripted) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Scripted, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _fit(tmp_path / "out", resume=True)
    assert Result.load(tmp_path / "out") == before


def test_what_an_interrupt_says_of_the_folder_is_so(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert what_is_there(out) == f"anything was finished; nothing was written to {out}"
    result = _fit(out)
    assert what_is_there(out) == f"its end; {out} holds a finished result"
    replace(result, finished=False).save(out)
    assert "--resume continues, --overwrite starts again" in what_is_there(out)
    (out / "result.json").write_text("{}")
    assert what_is_there(out) == "anything was finished"


# ---- two fits


def test_a_second_fit_in_the_same_folder_is_told_who_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = []

    def second(folder: Path) -> None:
        for options in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(MachineError, match=rf"in use by process {os.getpid()} on") as error:
                _fit(folder, **options)
            refused.append(error.value.exit_code)

    monkeypatch.setattr(Scripted, "during", second)
    assert _fit(tmp_path / "out").finished
    assert refused == [4, 4, 4]
    _require_true(tmp_path / "out")
    assert Scripted.runs == 1


def test_a_lock_that_a_dead_process_left_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("process 1 on there")
    assert _fit(tmp_path).finished


@pytest.mark.filterwarnings("ignore:os.fork")  # which JAX gives once another test has loaded it
def test_a_process_that_was_forked_off_holds_no_lock(tmp_path: Path) -> None:
    handle = _lock(tmp_path / LOCK, tmp_path)
    assert handle is not None
    (hear, tell), (born, birth) = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        os.close(tell)
        os.write(birth, b"1")
        os.read(hear, 1)
        os._exit(0)
    os.read(born, 1)
    with pytest.raises(MachineError, match="in use by"):
        _lock(tmp_path / LOCK, tmp_path)
    os.close(handle)  # as a kill does
    again = _lock(tmp_path / LOCK, tmp_path)
    os.close(tell)
    os.waitpid(child, 0)
    for one in (hear, born, birth):
        os.close(one)
    assert again is not None
    os.close(again)


def test_without_locks_a_note_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    result = _fit(tmp_path / "out")
    assert any("file system without locks" in one for one in result.notes)
    assert LOCK not in _tree(tmp_path / "out")


# ---- what is the user's


def test_overwrite_removes_what_penjing_wrote_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    _fit(out)
    (out / "candidates" / "gone").mkdir()
    (out / "candidates" / "gone" / "untuned.onnx").write_text("old")
    mine = {
        "model.pt": b"a", "model.tar.gz": b"b", "models/model.onnx": b"c", "candidates/notes": b"d",
        "candidates/int8/model.pt": b"e", "candidates/int8/network.json": b"f",
        "network/network.json": b"g", ".penjing-mine.tmp": b"h",
    }  # fmt: skip
    for name, content in mine.items():
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(content)
    monkeypatch.setattr(Scripted, "content", "second")
    assert _fit(out, overwrite=True).finished
    tree = _tree(out)
    assert mine.items() <= tree.items()
    assert not any(one.startswith("candidates/gone") for one in tree)
    assert b"first" not in b" ".join(one or b"" for one in tree.values())


@pytest.mark.parametrize(
    "name",
    ["model.tflite", "model.onnx/", "report.md/", "report.html/", "candidates.mine", "candidates"],
)
def test_a_users_file_in_the_way_is_told_before_any_work(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    _fit(out)
    path = out / name.rstrip("/")
    if name == "candidates":
        path.rename(out / "elsewhere")
    path.unlink(missing_ok=True)
    path.mkdir() if name.endswith("/") else path.write_text("mine")
    before = _tree(out)
    in_the_way = name != "candidates.mine" and _could_deliver(path.name)
    if in_the_way:
        with pytest.raises(InputError, match=f"{path.name} wasn't written by penjing, and the"):
            _fit(out, overwrite=True)
        assert _tree(out) == before
    else:
        _fit(out, overwrite=True)
        assert _tree(out)[path.name] == b"mine"


def _could_deliver(name: str) -> bool:
    endings = [one.ending for one in ENTRIES.values() if not one.missing]
    return name in names_of_artifacts("model", endings) | {*REPORT, "candidates"}


def test_a_folder_that_is_not_penjings_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "candidates").mkdir()
    (tmp_path / "candidates" / "alice.txt").write_text("mine")
    before = _tree(tmp_path)
    for options in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(InputError, match="is not empty, and holds no result of penjing"):
            _fit(tmp_path, **options)
    (tmp_path / "result.json").write_text('{"accuracy": 1}')
    for options in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(InputError, match=r"result\.json can't be read"):
            _fit(tmp_path, **options)
    (tmp_path / "result.json").unlink()
    assert _tree(tmp_path) == before


def test_a_record_cannot_have_files_removed_that_penjing_does_not_write(tmp_path: Path) -> None:
    out = tmp_path / "out"
    _fit(out)
    (tmp_path / "thesis").write_text("mine")
    (out / "thesis").write_text("mine")
    names = ("../thesis", str(tmp_path / "thesis"), "thesis", "..", "")
    replace(Result.load(out), files=names).save(out)
    for one in ("model.onnx", *REPORT):
        (out / one).unlink()
    _fit(out, overwrite=True)
    assert (tmp_path / "thesis").exists()
    assert (out / "thesis").exists()


def test_a_link_in_the_place_of_candidates_is_not_followed(tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    _fit(out)
    (out / "candidates").rename(other)
    (out / "candidates").symlink_to(other)
    (other / "gone").mkdir()
    (other / "gone" / "model.onnx").write_text("mine")
    _fit(out, overwrite=True)
    assert (other / "gone" / "model.onnx").exists()


def test_what_was_left_over_counts_as_penjings(tmp_path: Path) -> None:
    (tmp_path / "candidates" / "original").mkdir(parents=True)
    for name in (LOCK, ".penjing-0123456789abcdef.tmp"):
        (tmp_path / name).write_text("left")
    (tmp_path / "candidates" / ".penjing-0123456789abcdef.tmp").write_text("left")
    assert _fit(tmp_path).finished
    assert not any(one.name.endswith((".tmp", "lock")) for one in tmp_path.rglob("*"))


@pytest.mark.parametrize("name", [name for name, one in ENTRIES.items() if not one.missing])
def test_the_files_of_every_runtime_are_known_by_name(name: str) -> None:
    kind = ENTRIES[name].kind()
    for stem in ("model", "untuned"):
        files = {one.name for one in kind().files(Path(f"{stem}{kind.ending}"))}
        assert files == names_of_artifacts(stem, [kind.ending])
        assert files <= OF_CANDIDATES | OF_EARLIER_ONES
        assert files <= DELIVERED or stem == "untuned"


def test_a_file_of_an_earlier_choice_goes_when_another_is_delivered(tmp_path: Path) -> None:
    (tmp_path / "candidates").mkdir()
    (tmp_path / "candidates" / "model.onnx").write_text("second")
    (tmp_path / "model.tflite").write_text("first")
    original = trial("original", (), "baseline", artifact="candidates/model.onnx", sha256="")
    result = Result("t", "cpu", "m", "size", 1.0, 0.95, 0, {}, original, files=("model.tflite",))
    ledger = Ledger.begin(tmp_path, result)
    ledger.record(original)
    ledger.finish(ledger.result)
    ledger.close()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        LEDGER, "model.onnx", "result.json",
    ]  # fmt: skip
    assert Result.load(tmp_path).files == ("model.onnx",)


# ---- a refused fit


@pytest.mark.parametrize("there", [0, 1, 2], ids=["no folder", "the outer one", "both"])
@pytest.mark.parametrize("stage", ["task", "capture", "option", "first figure"])
def test_a_refused_fit_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: int, stage: str
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise InputError("refused")

    def refuse_figures(search: Scripted) -> None:
        path = search.ledger.folder / CANDIDATES / "original" / f"{STEM}.onnx"
        path.parent.mkdir(parents=True)
        write_atomically(path, b"of no use")
        raise InputError("refused")

    out = tmp_path / "outer" / "out"
    for one in (out.parent, out)[:there]:
        one.mkdir()
    options: dict[str, Any] = {}
    if stage == "task":
        options["task"] = "nothing.py"
    elif stage == "capture":
        monkeypatch.setattr("penjing.search.fit.capture", refuse)
    elif stage == "option":
        options["max_drop"] = -1.0
    else:
        monkeypatch.setattr(Scripted, "run", refuse_figures)
    with pytest.raises(InputError):
        _fit(out, **options)
    assert list(tmp_path.rglob("*")) == [out.parent, out][:there]


# ---- resuming


def test_resuming_a_finished_fit_gives_its_result_and_does_nothing(tmp_path: Path) -> None:
    result = _fit(tmp_path / "out")
    before = _tree(tmp_path / "out")
    again = _fit(tmp_path / "out", resume=True)
    assert Scripted.runs == 1
    assert replace(again, notes=()) == replace(result, notes=())
    assert "already finished, so `resume` had nothing left to do" in again.notes[-1]
    assert _tree(tmp_path / "out") == before


def test_resuming_where_nothing_is_begins_and_says_so(tmp_path: Path) -> None:
    result = _fit(tmp_path / "out", resume=True)
    assert result.finished
    assert result.notes[-1].startswith("there was nothing to resume in ")


class Batches:
    """Batches of a library that draws its own order."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor, length: int = 4) -> None:
        self.x, self.y, self.length = x, y, length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        order = np.random.permutation(len(self.y)) + random.randrange(1)
        for one in np.array_split(order, self.length):
            yield self.x[one], self.y[one]


def _changed(value: torch.Tensor) -> torch.Tensor:
    return torch.cat([value[:-1], value[-1:] + 1])


OTHER_LABEL = torch.where(torch.arange(16) == 15, 1, Y)
OTHER_WEIGHTS = nn.Linear(4, 3)
INPUTS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "weights": ({}, {"model": OTHER_WEIGHTS}, "weights"),
    "graph": ({}, {"model": nn.Sequential(nn.Linear(4, 3), nn.ReLU())}, "graph"),
    "example": ({}, {"example": X[:3]}, "example"),
    "inputs": ({}, {"train": Arrays(_changed(X), Y, batch_size=4)}, "training data"),
    "labels": ({}, {"test": Arrays(X, OTHER_LABEL, batch_size=4)}, "test data"),
    "order": (
        {}, {"validation": Arrays(X, Y, batch_size=8)}, "validation data",
    ),
    "no validation": ({}, {"validation": None}, "validation data"),
    "batches": ({"train": Batches(X, Y)}, {"train": Batches(_changed(X), Y)}, "training data"),
    "length": ({"train": Batches(X, Y)}, {"train": Batches(X, Y, 5)}, "training data"),
}  # fmt: skip


@pytest.mark.parametrize("name", INPUTS)
def test_a_fit_is_not_resumed_with_other_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before, after, text = INPUTS[name]
    monkeypatch.setattr("penjing.search.fit.capture", capture)
    with _disk(35, Killed), pytest.raises(Killed):
        _fit(tmp_path / "out", task=_task(**before))
    tree = _tree(tmp_path / "out")
    with pytest.raises(
        InputError, match=f"was started, these have changed: .*{text}.*; use the same"
    ):
        _fit(tmp_path / "out", task=_task(**before | after), resume=True)
    assert (
        _tree(tmp_path / "out").items()
        >= {name: content for name, content in tree.items() if ".penjing-" not in name}.items()
    )
    assert _fit(tmp_path / "out", task=_task(**before), resume=True).finished


def test_all_that_changed_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with _disk(35, Killed), pytest.raises(Killed):
        _fit(tmp_path / "out")
    monkeypatch.setattr("penjing.search.fit._versions", lambda: {"penjing": "2"})
    wanted = (
        r"changed: max_drop \(was 1\.0, now 2\.0\), seed \(was 0, now 3\), "
        r"penjing \(was 1, now 2\), training data, test data; use"
    )
    other = Arrays(X, OTHER_LABEL, batch_size=4)
    with pytest.raises(InputError, match=wanted):
        _fit(
            tmp_path / "out", task=_task(train=other, test=other), resume=True, max_drop=2.0, seed=3
        )


def test_data_that_is_shuffled_is_known_again_and_nobody_else_draws_otherwise_for_it() -> None:
    network = capture(nn.Linear(4, 3), X[:2])
    loader = DataLoader(TensorDataset(X, Y), batch_size=4, shuffle=True)
    found, draws = [], []
    for _ in range(2):
        torch.manual_seed(1), np.random.seed(1), random.seed(1)
        task = _task(train=loader, validation=Batches(X, Y))
        state = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]
        found.append(identity(task, network))
        after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]
        assert torch.equal(state[0], after[0])
        assert state[1:] == after[1:]
        draws.append(torch.rand(()))
        torch.manual_seed(2), np.random.seed(2), random.seed(2)
    assert found[0] == found[1]

    class Own(Batches):
        def __iter__(self) -> Iterator[Any]:
            yield self.x + np.random.default_rng().random(), self.y

    own = [identity(_task(train=Own(X, Y)), network) for _ in range(2)]
    assert own[0] == own[1]


def test_a_trained_network_that_is_damaged_is_made_again(tmp_path: Path) -> None:
    told: list[str] = []
    task = _task()
    networks = Networks(task, capture(task.model, task.example), tmp_path, damaged=told.append)
    recipe = [Tune(TuneOptions(epochs=1, distill=0.0), recalibration_samples=0).to_json()]
    folder = networks.place(recipe)
    folder.mkdir(parents=True)
    (folder / "network.json").write_text('{"format": 2, "source": null, "plans"')
    (folder / "weights.safetensors").write_text("")
    assert networks.is_saved(recipe)
    networks.made(recipe)
    assert len(told) == 1
    assert told[0].startswith(
        "a network is trained again, because the one that an earlier run saved is damaged: "
    )
    assert "network.json" in told[0]
    again = Networks(task, networks.original, tmp_path, damaged=told.append)
    assert [plan.method for plan in again.made(recipe).history] == ["Tune"]
    assert len(told) == 1  # what was made anew is whole


# ---- paths


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x" * 300, "File name too long"),
        ("/".join(["x" * 200] * 19 + ["x" * 150]), "File name too long"),
        ("\udcff", r"\\xff isn't UTF-8; choose another name"),
        ("a\0b", "null"),
    ],
)
def test_a_path_that_cannot_be_used_is_one_line(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(PenjingError, match=text) as error:
        _fit(tmp_path / name)
    assert error.value.exit_code == 4
    assert len(str(error.value)) < 400
    str(error.value).encode()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["with spaces in it", "-x", "grün", "a'b\"c"])
def test_odd_names_of_folders_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _fit(Path(name)).finished
    assert (tmp_path / name / "model.onnx").exists()


def test_a_task_may_change_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    monkeypatch.setattr(Scripted, "during", lambda _: os.chdir("other"))
    assert _fit(Path("out")).finished
    assert (tmp_path / "out" / "model.onnx").exists()


def test_a_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only() -> OSError:
        return OSError(errno.EROFS, "Read-only file system")

    with _disk(1, read_only), pytest.raises(DiskError, match="Read-only file system; choose"):
        _fit(tmp_path)


def test_a_result_of_a_newer_penjing_is_refused(tmp_path: Path) -> None:
    _fit(tmp_path / "out")
    path = tmp_path / "out" / "result.json"
    path.write_text(path.read_text().replace(f'"format": {FORMAT}', f'"format": {FORMAT + 1}'))
    told = f"format {FORMAT + 1}, this penjing reads {FORMAT}: upgrade it"
    for option in ("resume", "overwrite"):
        with pytest.raises(InputError, match=told):
            _fit(tmp_path / "out", **{option: True})
