"""Each known bad input gives one line and the right exit code, before any long work."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from penjing import cli
from penjing.contract import Latency
from penjing.errors import InputError
from penjing.measure.there import _state
from penjing.network import capture
from penjing.runtimes.onnx import export as onnx_export
from penjing.search.options import FitOptions
from penjing.trials.evaluation.files import Loaded
from penjing.trials.evaluation.timing import Here
from tests.bad_inputs import PAGE, ROWS, Row, page

ROOT = Path(__file__).parent.parent
PROVOKED = [row for row in ROWS if row.provoke]
OF_OTHER_TESTS = [row for row in ROWS if row.test]
pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch warns about bad inputs too


def _name(row: Row) -> str:
    return f"{row.number} {row.what}"


def _run(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    """The exit code of the command line, and what it prints on both streams."""
    said, wrong = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "argv", ["penjing", *arguments])
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(wrong):
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0), said.getvalue(), wrong.getvalue()
    return 0, said.getvalue(), wrong.getvalue()


def _matches(line: str, found: str) -> bool:
    return re.fullmatch(_pattern(line), found) is not None


def _pattern(line: str) -> str:
    return ".*".join(map(re.escape, line.split("...")))


@pytest.mark.parametrize("row", PROVOKED, ids=_name)
def test_a_bad_input_is_one_line(row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def at_once(here: Here, baseline: Loaded, file: Loaded) -> tuple[Latency, None]:
        return Latency(1.0, 1.0, 1.0, 1.0, 1.0, 15), None

    monkeypatch.setattr(Here, "latency_and_peak", at_once)
    assert row.provoke is not None
    code, said, wrong = _run(row.provoke(tmp_path, monkeypatch), monkeypatch)
    assert code == row.code, wrong or said
    if code:
        *progress, line = wrong.strip().splitlines()
        assert all(one.startswith(("[", "  ")) for one in progress)
        assert _matches(row.line, line), line
        assert not said
    else:
        assert re.search(_pattern(row.line), " ".join(said.split())), said  # lines are wrapped
    monkeypatch.undo()
    assert code == 0 or not (tmp_path / "out" / "result.json").exists()


@pytest.mark.parametrize("row", OF_OTHER_TESTS, ids=_name)
def test_what_other_tests_provoke_is_in_their_source(row: Row) -> None:
    file, _, name = row.test.partition("::")
    text = (ROOT / file).read_text()
    assert f"def {name}" in text
    plain = re.sub(r'"\s*\n\s*r?f?"', "", text).replace("\\", "")
    assert all(part in plain for part in row.line.split("...")), row.line


def test_every_number_has_a_row_and_the_page_shows_it() -> None:
    assert {row.number for row in ROWS} == set(range(1, 97))
    assert all(bool(row.provoke) + bool(row.test) + bool(row.absent) == 1 for row in ROWS)
    assert PAGE.read_text() == page(), "python -m tests.bad_inputs --write"


def test_weights_beyond_one_file_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    network = capture(nn.Linear(4, 3), torch.zeros(2, 4))
    monkeypatch.setattr(onnx_export, "PROTOBUF_LIMIT", 60)
    (line,) = onnx_export.too_large_for_onnx(network)
    assert re.fullmatch(r"60 bytes of weights exceed the .* of one ONNX file", line)


def test_versions_with_known_weaknesses_are_kept_out() -> None:
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    found = [re.match(r"([a-z0-9-]+)>=([\d.]+)", one) for one in needs]
    least = {one[1]: one[2] for one in found if one is not None}
    assert len(least) == len(needs)
    assert tuple(map(int, least["onnx"].split("."))) >= (1, 21)
    assert tuple(map(int, least["torch"].split("."))) >= (2, 10)
    assert tuple(map(int, least["jinja2"].split("."))) >= (3, 1, 6)


def test_durations_are_of_the_monotonic_clock() -> None:
    source = ROOT / "src" / "penjing"
    wall = [path.name for path in source.rglob("*.py") if "time.time()" in path.read_text()]
    assert wall == ["agent.py"]  # it compares with the dates of files


def test_what_a_device_does_not_tell_is_unknown() -> None:
    nothing = dict.fromkeys(("governor", "celsius", "mhz", "throttle_count", "throttled_now"))
    notes, throttled = _state({"before": nothing, "after": nothing})
    assert notes == ("CPU governor: unknown", "temperature: unknown", "throttling: unknown")
    assert not throttled


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"minutes": 0.0}, "`minutes` must be a positive number; found 0.0"),
        ({"minutes": float("inf")}, "`minutes` must be a positive number; found inf"),
        ({"max_ms": 0.0}, "`max_ms` must be a positive number; found 0.0"),
        ({"max_kb": -1.0}, "`max_kb` must be a positive number; found -1.0"),
        ({"goal": "speed"}, "`goal` must be latency, size or memory, or several of them"),
        ({"confidence": 1.0}, r"`confidence` must be at least 0.5 and below 1; found 1.0"),
        ({"confidence": float("nan")}, r"`confidence` must be at least 0.5 and below 1; found nan"),
        ({"seed": -1}, "`seed` must be an integer from 0 .*; found -1"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], line: str) -> None:
    options = dict(options)
    FitOptions().require_possible(minutes=1.0)
    minutes = options.pop("minutes", 1.0)
    with pytest.raises(InputError, match=line):
        FitOptions(**options).require_possible(minutes)


def test_a_bug_is_no_want_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("penjing.tasks.reference.find_task", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        _run(["profile", "digits"], monkeypatch)


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf"])
def test_bench_wants_a_time(seconds: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for more in ([], ["--target", "ssh://pi@device"]):
        code, _, wrong = _run(["bench", "a.onnx", "--seconds", seconds, *more], monkeypatch)
        assert code == 2
        assert "--seconds must be a positive number; found" in wrong
