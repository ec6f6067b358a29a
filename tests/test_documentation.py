"""Documentation runs: each example in a docstring prints what the docstring says."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import re
import sys
import sysconfig
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

import penjing
from tests.test_floors import FLOORS

SOURCE = Path(penjing.__file__).parent
ROOT = Path(__file__).parents[1]
WITH_EXAMPLES = [path for path in sorted(SOURCE.rglob("*.py")) if ">>> " in path.read_text()]
OF_RUNTIMES = {"ai_edge_litert", "executorch", "flatbuffers", "openvino"}
"""Packages that some runtimes' modules import, and that needn't be installed."""


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_examples_in_docstrings_run(path: Path) -> None:
    name = ".".join(("penjing", *path.relative_to(SOURCE).with_suffix("").parts))
    try:
        module = importlib.import_module(name.removesuffix(".__init__"))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in OF_RUNTIMES:
            raise
        pytest.skip(f"{error.name} isn't installed")
    failed, tried = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert tried
    assert not failed


FOLDERS = ("src", "tests", "benchmarks", "examples", "docs")
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
OF_FORMER_DAYS = ("CHANGELOG.md", "results.md")
OF_A_USER = {"mytask.py", "mystrategy.py"}
"""Files that examples speak of."""
KEYS = {"penjing.outputs", "penjing.toml"}
"""Of metadata, and a file of a user; they are spelled as a module is."""
PAGES = [
    path
    for path in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *FILES)
    if path.name not in OF_FORMER_DAYS and "_build" not in path.parts
]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_modules_that_are_named_are_there(page: Path) -> None:
    text = page.read_text()
    named = re.findall(r"`([a-z_0-9/]+\.py)", text)
    named = [name for name in named if name not in OF_A_USER]
    assert not [name for name in named if not any(f"/{name}" in str(path) for path in FILES)]
    modules = set(re.findall(r"`(penjing(?:\.[a-z_0-9]+)+)", text)) - KEYS
    assert not [name for name in sorted(modules) if not _is_there(name)]


def _is_there(name: str) -> bool:
    """Whether it is a module, or something in one."""
    for end in range(len(parts := name.split(".")), 0, -1):
        with contextlib.suppress(ImportError):
            found: object = importlib.import_module(".".join(parts[:end]))
            for part in parts[end:]:
                found = getattr(found, part, None)
            return found is not None
    return False


def test_no_benchmark_hides_an_installed_module() -> None:
    """The tests' path has the benchmarks' folder in front."""
    places = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    for path in (ROOT / "benchmarks").glob("*.py"):
        assert path.stem not in sys.stdlib_module_names
        assert PathFinder.find_spec(path.stem, places) is None, path


def test_the_map_has_every_room() -> None:
    """And names no other: `tests/test_floors.py` holds the same table."""
    told = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", told, re.M)
    rooms = {
        room.rstrip("/").removesuffix(".py"): int(floor)
        for floor, names in rows
        for room in re.findall(r"`([a-z_.]+/?)`", names)
    }
    assert rooms == {room: floor for room, floor in FLOORS.items() if "__" not in room}
