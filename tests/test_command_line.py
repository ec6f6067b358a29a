"""Commands that make no fit: each prints what it found, for people and as JSON."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import penjing
from penjing.cli.app import app
from penjing.cli.commands import main
from penjing.contract import Measurement
from penjing.errors import InputError
from penjing.passes import PASSES
from penjing.runtimes.registry import ENTRIES
from penjing.targets import all_targets
from penjing.trials.result import Result
from tests.fits import trial

ROOT = Path(__file__).parents[1]
GOOD = "tests.bad_tasks:good"


def _printed(*arguments: str, columns: int = 300) -> str:
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": str(columns)})
    assert done.exit_code == 0, done.exception
    return done.stdout


def test_the_version_is_told_once() -> None:
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())
    version = about["tool"]["setuptools"]["dynamic"]["version"]
    assert version == {"attr": "penjing.version.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", penjing.__version__)
    assert _printed("--version") == f"penjing {penjing.__version__}\n"
    assert f"- {penjing.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """An int8 file of a small network, and what `export` told of it."""
    out = tmp_path_factory.mktemp("exported")
    options = ["--precision", "int8", "--out", str(out), "--json"]
    return out / "model.onnx", json.loads(_printed("export", GOOD, *options))


def test_export_tells_what_lies_in_the_record(exported: tuple[Path, dict[str, Any]]) -> None:
    path, told = exported
    assert told["file"] == path.name
    assert told["file_bytes"] == path.stat().st_size
    record = json.loads((path.parent / "export.json").read_text())
    assert record["sha256"] == told["sha256"]


def test_verify_finds_what_export_did(exported: tuple[Path, dict[str, Any]]) -> None:
    path, told = exported
    again = json.loads(_printed("verify", str(path), "--task", GOOD, "--json"))
    assert {key: again[key] for key in ("score", "sha256", "runtime", "placement")} == {
        key: told[key] for key in ("score", "sha256", "runtime", "placement")
    }
    lines = _printed("verify", str(path), "--task", GOOD).splitlines()
    assert lines[0].endswith(f"model.onnx, {told['file_bytes']:,} bytes")
    assert any(line.startswith("decisions ") for line in lines)
    assert not any(line.startswith("changed ") for line in lines)


def test_runtimes_lists_all_with_what_installs_them() -> None:
    found = json.loads(_printed("runtimes", "--json"))
    assert set(found) == set(ENTRIES)
    assert found["onnxruntime"]["missing"] == []
    table = _printed("runtimes", columns=80)
    assert all(name in table for name in ENTRIES)
    missing = [one.install for one in ENTRIES.values() if one.missing]
    assert all(line.partition(", and ")[0] in table for line in missing)


def test_profile_of_a_task_gives_its_layers() -> None:
    found = json.loads(_printed("profile", GOOD, "--json"))
    assert found["latency_ms"] > 0
    assert {"conv", "head"} <= {one["layer"] for one in found["layers"]}
    assert "conv" in _printed("profile", GOOD)


def _check(folder: Path, exported: tuple[Path, dict[str, Any]], *rules: str) -> Path:
    path = folder / "penjing.toml"
    head = [f"task = '{GOOD}'", "[[file]]", f"path = '{exported[0]}'"]
    path.write_text("\n".join([*head, *rules]))
    return path


def test_check_has_a_line_for_each_rule_and_ends_with_1_if_one_is_broken(
    exported: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    rules, report = ("min_score = 0.5", "max_kb = 20", "max_memory_mb = 4000"), tmp_path / "a.xml"
    kept = _check(tmp_path, exported, *rules)
    lines = _printed("check", str(kept), "--junit", str(report)).splitlines()
    assert [line.split(": ")[1] for line in lines[:3]] == [
        "max_kb = 20", "max_memory_mb = 4000", "min_score = 0.5",
    ]  # fmt: skip
    assert all(line.startswith("kept    ") for line in lines[:3])
    assert lines[3].startswith("3 rules kept, on ")
    assert 'failures="0"' in report.read_text()
    broken = _check(tmp_path, exported, "max_kb = 0.1", "no_saturation = true")
    done = CliRunner().invoke(app, ["check", str(broken), "--junit", str(report)])
    assert done.exit_code == 1
    assert done.stdout.startswith(f"BROKEN  {exported[0]}: max_kb = 0.1: has ")
    assert "\n1 of 2 rules broken, on " in done.stdout
    assert 'failures="1"' in report.read_text()
    told = CliRunner().invoke(app, ["check", str(broken), "--json"])
    assert told.exit_code == 1
    assert [row["kept"] for row in json.loads(told.stdout)["rules"]] == [False, True]


def test_check_takes_penjing_toml_where_no_file_is_named(
    exported: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _check(tmp_path, exported, "max_kb = 20")
    monkeypatch.chdir(tmp_path)
    assert "1 rule kept" in _printed("check")


# ---- help, completion, and what fits a terminal


@pytest.mark.parametrize("name", PASSES)
def test_every_pass_is_described_with_its_options_and_its_source(name: str) -> None:
    about = json.loads(_printed("passes", name, "--json"))[name]
    told = {word for names in about["options"] for word in names.split(", ")}
    assert told == set(about["defaults"])
    assert all(about["options"].values())
    assert re.search(r"(19|20)\d\d", about["source"])
    page = _printed("passes", name, columns=80)
    assert max(map(len, page.splitlines())) <= 80


def test_an_unknown_pass_is_one_line() -> None:
    done = CliRunner().invoke(app, ["passes", "Prune"])
    assert isinstance(done.exception, InputError)
    assert str(done.exception).startswith("there is no pass 'Prune'; passes are Binarize, ")


COMMANDS = (
    "fit",
    "init",
    "advise",
    "report",
    "export",
    "verify",
    "profile",
    "bench",
    "check",
    "targets",
    "runtimes",
    "passes",
)


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of the whole command line."""
    monkeypatch.setattr(sys, "argv", ["penjing", *arguments])
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_the_program_alone_says_where_to_begin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch) == 2
    said = capsys.readouterr()
    assert "  penjing fit digits --minutes 2 --out fitted" in said.out.splitlines()
    assert all(f"  {command} " in said.out for command in COMMANDS)
    assert said.err == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_tells_each_option_in_80_columns_with_an_example(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, command, "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert not set("│╭╰─┏┃\x1b") & set("".join(lines))
    assert lines[0].startswith(f"Usage: penjing {command}")
    options = typer.main.get_command(app).commands[command].params  # type: ignore[attr-defined]
    for option in options:
        if option.opts[0].startswith("--"):
            assert any(line.startswith(f"  {option.opts[0]}") for line in lines), option.opts
            assert option.help
    assert lines[-1].startswith(f"  penjing {command}")


def test_python_m_penjing_is_penjing() -> None:
    command = [sys.executable, "-m", "penjing", "fit", "--max-drp", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("penjing: error: no such option: --max-drp")
    assert done.stderr.endswith("(penjing fit --help)\n")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("penjing", ""), set(COMMANDS)),
        (("penjing", "fit", "--max"), {"--max-drop", "--max-ms", "--max-kb"}),
        (("penjing", "targets", "rasp"), {"raspberry-pi-4", "raspberry-pi-5"}),
        (("penjing", "export", "digits", "--runtime", "lit"), {"litert"}),
        (("penjing", "export", "digits", "--precision", "int8"), {"int8", "int8-weights"}),
    ],
)
def test_the_shell_completes_commands_options_and_names(
    words: tuple[str, ...],
    wanted: set[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("_PENJING_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", " ".join(words))
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    assert _run(monkeypatch) == 0
    assert set(capsys.readouterr().out.split()) == wanted


def test_the_completion_calls_the_program_by_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    assert _run(monkeypatch, "--show-completion", "bash") in (0, 2)  # by what the shell is told
    said = capsys.readouterr()
    assert "_PENJING_COMPLETE" in said.out or "--show-completion" in said.err


@pytest.mark.parametrize(
    "arguments",
    [("targets",), ("runtimes",), ("targets", "nxp-imx93"), ("passes",), ("passes", "Drop")],
)
def test_lists_fit_80_columns_and_break_no_shell_line(arguments: tuple[str, ...]) -> None:
    lines = _printed(*arguments, columns=80).splitlines()
    wide = [line for line in lines if len(line) > 80]
    assert all(line.startswith("    pip install") for line in wide)
    assert not set("│╭╰─┏┃") & set("".join(lines))


def test_every_target_is_listed_and_described_with_its_sources() -> None:
    listed = _printed("targets", columns=80)
    for name, target in all_targets().items():
        assert f"\n{name} " in listed
        told = " ".join(_printed("targets", name, columns=80).split())
        assert target.isa in told
        assert all(source in told for source in target.sources.values())
    assert set(json.loads(_printed("targets", "nxp-imx93", "--json"))) == {"nxp-imx93"}


@pytest.mark.parametrize("command", ["export", "profile"])
def test_what_is_printed_of_a_task_fits_80_columns(command: str, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path)] if command == "export" else []
    lines = _printed(command, GOOD, *out, columns=80).splitlines()
    assert all(len(line) <= 80 for line in lines if str(tmp_path) not in line)


def test_a_result_is_reported_again_and_a_folder_without_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = trial("original", (), "baseline", measurement=Measurement(score=0.9))
    result = Result(
        "task", "cpu", "m", "latency", 1.0, 0.95, 0, {}, original,
        reason="no candidate was finished", verdicts=("A verdict.",),
    )  # fmt: skip
    result.save(tmp_path)
    assert _run(monkeypatch, "report", str(tmp_path)) == 0
    short = capsys.readouterr().out
    assert "The test data has not been used" in short
    assert "A verdict." not in short
    assert _run(monkeypatch, "report", str(tmp_path), "--all") == 0
    assert "- A verdict." in capsys.readouterr().out
    assert _run(monkeypatch, "report", str(tmp_path), "--json") == 0
    assert Result.from_json(json.loads(capsys.readouterr().out)) == result
    assert _run(monkeypatch, "report", str(tmp_path / "nowhere")) == 2
    assert "no result.json in" in capsys.readouterr().err
