"""How messages name options: as Python does in the library, as flags on the command line."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import penjing
from penjing.cli.app import _flags
from penjing.cli.commands import main
from penjing.cli.fit import print_result
from penjing.contract import Measurement
from penjing.errors import InputError
from penjing.printable import OPTION, with_flags
from penjing.targets import find_target, require_local
from penjing.trials.result import Result
from tests.fits import fit, trial

SOURCE = Path(penjing.__file__).parent
FILES = sorted(path for path in SOURCE.rglob("*.py") if SOURCE / "cli" not in path.parents)
FLAG = re.compile(r"--[a-z][a-z-]*")


def _texts(path: Path) -> Iterator[tuple[str, bool]]:
    """All texts of a file, and whether each is documentation."""
    tree = ast.parse(path.read_text())
    said = {id(one.value) for one in ast.walk(tree) if isinstance(one, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value, id(node) in said


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_text_of_the_library_spells_a_flag(path: Path) -> None:
    flags = set(_flags().values())
    spelled = [one for text, _ in _texts(path) for one in FLAG.findall(text) if one in flags]
    assert not spelled


def test_what_messages_name_are_options_of_the_command_line() -> None:
    named = {
        found[1]
        for path in FILES
        for text, documents in _texts(path)
        for found in OPTION.finditer(text)
        if not documents
    }
    assert {"max_drop", "out", "resume", "target"} <= named
    assert named <= set(_flags())


def test_a_flag_has_the_name_of_its_parameter() -> None:
    assert {name: flag for name, flag in _flags().items() if name != "as_json"} == {
        name: "--" + name.replace("_", "-") for name in _flags() if name != "as_json"
    }
    assert with_flags("`as_json`, `target='cpu'`, `max_drop=1.0`, `forward`", _flags()) == (
        "--json, --target cpu, --max-drop 1.0, `forward`"
    )


def test_an_error_names_the_parameter_and_on_the_command_line_the_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=r"^`max_drop` must be points between 0 and 100"):
        fit("digits", max_drop=-1.0, out=tmp_path / "out")
    command = ["penjing", "fit", "digits", "--max-drop", "-1", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit):
        main()
    line = "penjing: error: --max-drop must be points between 0 and 100"
    assert capsys.readouterr().err.startswith(line)
    with pytest.raises(InputError, match=r"use its address, `target='ssh://user@host'`$"):
        require_local(find_target("raspberry-pi-5"))


def test_a_result_names_parameters_and_is_printed_with_flags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original = trial("original", (), "baseline", measurement=Measurement(score=0.9))
    notes = ("interrupted; `resume` goes on",)
    result = Result(
        "task", "cpu", "m", "latency", 1.0, 0.95, 0, {}, original,
        reason="a lower `confidence` would decide it", notes=notes,
    )  # fmt: skip
    result.save(tmp_path)
    assert "`resume` goes on" in (tmp_path / "result.json").read_text()
    print_result(result, tmp_path)
    printed = capsys.readouterr().out
    assert "interrupted; --resume goes on" in printed
    assert "a lower --confidence would decide it" in printed
