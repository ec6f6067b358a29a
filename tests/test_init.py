"""`penjing init`: what it writes is an example, whether penjing is installed or a clone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from setuptools import Distribution  # type: ignore[import-untyped]
from typer.testing import CliRunner

from penjing.cli import init
from penjing.cli.app import app

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("kind", init.KINDS)
def test_each_kind_writes_its_example_and_says_what_to_run(kind: str, tmp_path: Path) -> None:
    file, example = tmp_path / "begin.py", ROOT / "examples" / init.KINDS[kind].example
    done = CliRunner().invoke(app, ["init", kind, str(file)])
    assert done.exit_code == 0, done.exception
    written, original = (ast.parse(path.read_text()) for path in (file, example))
    assert "penjing fit begin.py" in str(ast.get_docstring(written))
    assert list(map(ast.dump, written.body[1:])) == list(map(ast.dump, original.body[1:]))
    assert f"  penjing fit {file} --" in done.stdout


def test_a_file_that_exists_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mytask.py").write_text("task = None")
    done = CliRunner().invoke(app, ["init", "text", str(tmp_path / "mytask.py")])
    assert done.exit_code != 0
    assert (tmp_path / "mytask.py").read_text() == "task = None"


def test_without_a_name_it_is_mytask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["init", "regression"]).exit_code == 0
    assert (tmp_path / "mytask.py").is_file()


def test_what_a_file_needs_and_is_missing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(init, "find_spec", lambda name: None)
    done = CliRunner().invoke(app, ["init", "images", str(tmp_path / "mytask.py")])
    assert "  pip install timm" in done.stdout.splitlines()


def test_an_installed_penjing_has_the_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As setup.py builds the package, here without all else that is in it."""
    from distutils.core import run_setup

    monkeypatch.chdir(ROOT)
    distribution = run_setup("setup.py", stop_after="init")
    assert isinstance(distribution, Distribution)
    distribution.packages, distribution.include_package_data = [], False
    build = distribution.get_command_obj("build_py")
    build.build_lib = str(tmp_path)
    build.ensure_finalized()
    build.run()
    monkeypatch.setattr(init, "__file__", str(tmp_path / "penjing" / "cli" / "init.py"))
    assert init.examples() == tmp_path / "penjing" / "examples"
    assert {kind.example for kind in init.KINDS.values()} <= {
        path.name for path in init.examples().iterdir()
    }
