"""What the documentation writes by itself: the command line, the tables, prepared docstrings."""

from __future__ import annotations

import doctest
import importlib
import sys

import pytest
import typer

from penjing.cli.app import app
from penjing.runtimes.registry import ENTRIES
from penjing.targets import described
from tests.docs.pages import ROOT

pytest.importorskip("sphinx")
sys.path.append(str(ROOT / "docs" / "extensions"))
command_line, docstrings, tables = (
    importlib.import_module(name) for name in ("command_line", "docstrings", "tables")
)


def test_the_reference_has_every_command_and_option() -> None:
    written = command_line.reference()
    for command in typer.main.get_command(app).commands:  # type: ignore[attr-defined]
        assert f"\n## penjing {command}\n" in written
    assert "| `--max-drop` | text | `1.0` | " in written
    assert "| `TASK` |  | required | " in written
    assert "| `--runtime` | text, may be repeated |" in written


def test_the_tables_have_every_runtime_and_target() -> None:
    assert all(
        f"| `{name}` | `{entry.ending}` |" in tables.runtimes() for name, entry in ENTRIES.items()
    )
    assert all(
        f"| `{name}` | {target.description} |" in tables.targets()
        for name, target in described().items()
    )


def test_the_example_of_prepared_docstrings_holds() -> None:
    failed, tried = doctest.testmod(docstrings)
    assert tried
    assert not failed
