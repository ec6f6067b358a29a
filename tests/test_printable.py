"""What others named is shown on the terminal and not obeyed; JSON keeps it."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import onnx
import pytest
from rich.progress import Progress, TextColumn
from rich.table import Table
from typer.testing import CliRunner

from penjing.cli.app import app
from penjing.cli.commands import main
from penjing.errors import InputError
from penjing.printable import in_a_line, printable
from penjing.report.terminal import Console
from tests.hostile_files import sound

EVIL = "\x1b[2J\x07\r\x9b31m\u202ex\u2066\x00\x7f"
SHOWN = "\\x1b[2J\\x07\\r\\x9b31m\\u202ex\\u2066\\x00\\x7f"
RAW = set("\x1b\x07\r\x9b\u202e\u2066\x00\x7f")


def test_a_text_is_shown_as_it_is_unless_it_commands() -> None:
    assert printable(EVIL) == in_a_line(EVIL) == SHOWN
    honest = "schön, 模型, \u0645\u062f\u0644\u200c\u0647\u0627, 🌳, a b\tc"
    assert printable(honest) == honest
    assert (printable("a\nb"), in_a_line("a\nb\tc")) == ("a\nb", "a\\nb\\tc")
    assert printable("caf\udce9 \ud800 \u2028") == "caf\\xe9 \\ud800 \\u2028"


def test_whatever_way_a_text_comes_it_is_printable() -> None:
    console = Console(file=io.StringIO(), width=300)
    table = Table(title=EVIL, caption=EVIL)
    table.add_column(EVIL)
    table.add_row(EVIL)
    console.print(table)
    console.print(EVIL, markup=False, soft_wrap=True)
    console.print(f"[bold]{EVIL}[/]", {"a": EVIL})
    with Progress(TextColumn("{task.description}"), console=console) as bar:
        bar.add_task(EVIL, total=1)
    written = console.file.getvalue()  # type: ignore[attr-defined]
    assert not RAW & set(written)
    assert written.count("\\x1b[2J") >= 6


def file_of_evil_names(folder: Path) -> Path:
    """A sound file whose own name and whose nodes' hold escapes and rich's markup."""
    model = onnx.load(sound(folder))
    model.graph.node[0].name = f"[red]node{EVIL.replace(chr(0), '')}"
    path = folder / f"evil{EVIL.replace(chr(0), '')}[bold].onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("command", ["bench", "profile"])
def test_names_in_tables_are_shown(command: str, tmp_path: Path) -> None:
    path = file_of_evil_names(tmp_path)
    options = ["--seconds", "0.1"] if command == "bench" else []
    wide = {"COLUMNS": "500"}
    found = CliRunner().invoke(app, [command, str(path), *options], env=wide)
    assert found.exit_code == 0, found.exception
    assert not RAW & set(found.stdout)
    name = "evil\\x1b[2J" if command == "bench" else "[red]node\\x1b[2J"
    assert name in found.stdout
    plain = json.loads(CliRunner().invoke(app, [command, str(path), *options, "--json"]).stdout)
    assert str(path) in plain if command == "bench" else "\x1b" in plain["nodes"][0]["node"]


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_an_error_shows_the_name_too(
    debug: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    absent = tmp_path / f"absent{EVIL.replace(chr(0), '')}.onnx"
    monkeypatch.setattr(sys, "argv", ["penjing", "bench", str(absent), *debug])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == InputError.exit_code
    lines = capsys.readouterr().err
    assert not RAW & set(lines)
    assert "absent\\x1b[2J" in lines.splitlines()[-1]
    assert (len(lines.splitlines()) > 1) is bool(debug)


def test_what_a_runtime_says_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of a node that it doesn't know; nor does it write to the terminal by itself."""
    model = onnx.load(sound(tmp_path))
    model.graph.node[0].name = model.graph.node[0].op_type = EVIL.replace(chr(0), "")
    path = tmp_path / "made.onnx"
    path.write_bytes(model.SerializeToString())
    monkeypatch.setattr(sys, "argv", ["penjing", "bench", str(path)])
    with pytest.raises(SystemExit):
        main()
    lines = capfd.readouterr().err
    assert not RAW & set(lines)
    assert "made.onnx" in lines
    assert "\\x1b[2J" in lines
