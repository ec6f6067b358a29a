"""Commands that make no fit: each prints what it found, for people and as JSON."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import penjing
from penjing.cli.app import app
from penjing.runtimes.registry import ENTRIES

ROOT = Path(__file__).parents[1]
GOOD = "tests.bad_tasks:good"


def _printed(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "300"})
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
    assert lines[0].startswith(f"model.onnx: {told['file_bytes']} bytes, onnxruntime ")
    assert any(line.startswith("decisions: ") for line in lines)
    assert "differs from its record" not in "".join(lines)


def test_runtimes_lists_all_with_what_installs_them() -> None:
    found = json.loads(_printed("runtimes", "--json"))
    assert set(found) == set(ENTRIES)
    assert found["onnxruntime"]["missing"] == []
    table = _printed("runtimes")
    assert all(name in table for name in ENTRIES)
    assert all(one.install in table for one in ENTRIES.values() if one.missing)


def test_profile_of_a_task_gives_its_layers() -> None:
    found = json.loads(_printed("profile", GOOD, "--json"))
    assert found["latency_ms"] > 0
    assert {"conv", "head"} <= {one["layer"] for one in found["layers"]}
    assert "conv" in _printed("profile", GOOD)
