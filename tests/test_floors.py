"""The floors: a file imports only from lower floors, never the package's own face."""

from __future__ import annotations

import ast
import pydoc
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import penjing
from penjing.passes import PASSES
from penjing.runtimes.registry import ENTRIES

SOURCE = Path(penjing.__file__).parent
FLOORS = {
    "errors": 1, "files": 1, "layout": 1, "printable": 1, "processor": 1, "quiet": 1,
    "strict_json": 1, "telemetry": 1, "version": 1,
    "contract": 2, "tasks": 2, "targets": 2,
    "arith": 3, "device": 3,
    "network": 4,
    "measure": 5, "tune": 5,
    "passes": 6, "runtimes": 6,
    "trials": 7,
    "engines": 8, "tools": 8,
    "search": 9,
    "report": 10,
    "cli": 11,
    "__init__": 12, "__main__": 12,
}  # fmt: skip
FILES = sorted(SOURCE.rglob("*.py"))
AT_THE_TOP = {"cli"}  # what a command does is tested for the whole house
OF_THE_REPOSITORY = {Path("docs")}  # rooms of tests for what isn't in the package


def _room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def _imports(path: Path) -> set[str]:
    """Modules of penjing that the file imports, anywhere in it; of a package, by what it takes."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("penjing"):
            module = str(node.module)
            is_room = (SOURCE.parent / Path(*module.split("."))).is_dir()
            is_room &= module != "penjing" or path.parent == SOURCE
            found |= {f"{module}.{one.name}" for one in node.names} if is_room else {module}
        elif isinstance(node, ast.Import):
            found |= {one.name for one in node.names if one.name.startswith("penjing")}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_import_climbs(path: Path) -> None:
    room = _room(path)
    assert room in FLOORS, f"{room} is in no floor: add it to docs/architecture.md and here"
    for module in _imports(path):
        parts = module.split(".")
        assert len(parts) > 1, f"{path.name} imports the package's face"
        other = parts[1]
        climbs = FLOORS[other] > FLOORS[room]
        sideways = FLOORS[other] == FLOORS[room] and other != room and FLOORS[room] >= 5
        assert not climbs, f"{room} (floor {FLOORS[room]}) imports {module}"
        assert not sideways, f"{room} imports {module} on its own floor"


ROOTS = {"passes": "Pass", "runtimes": "Runtime"}
"""By room, the class that each of its methods or runtimes is one of."""


def _module(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)


def _offered(room: str) -> dict[str, str]:
    """By class, the module of each pass, or of each runtime that has a name."""
    classes = {
        node.name: (_module(path), node)
        for path in sorted((SOURCE / room).rglob("*.py"))
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
    }

    def descends(name: str) -> bool:
        bases = [one.id for one in classes[name][1].bases if isinstance(one, ast.Name)]
        return any(one == ROOTS[room] or (one in classes and descends(one)) for one in bases)

    shared = {base.id for _, node in classes.values() for base in node.bases if hasattr(base, "id")}
    return {
        name: module
        for name, (module, node) in classes.items()
        if descends(name) and (name not in shared if room == "passes" else _is_named(node))
    }


def _is_named(node: ast.ClassDef) -> bool:
    named = [one for one in node.body if isinstance(one, ast.AnnAssign) and one.value]
    return any(isinstance(one.target, ast.Name) and one.target.id == "name" for one in named)


@pytest.mark.parametrize("room", ROOTS)
def test_no_pass_or_runtime_imports_its_neighbour(room: str) -> None:
    modules = set(_offered(room).values())
    assert len(modules) > 5
    for module in modules:
        imported = _imports(SOURCE.parent / Path(*module.split(".")).with_suffix(".py"))
        assert not imported & (modules - {module}), f"{module} imports its neighbour"


@pytest.mark.parametrize("room", ROOTS)
def test_every_pass_and_runtime_is_in_its_table(room: str) -> None:
    kinds = {kind.__name__: kind.__module__ for kind in PASSES.values()}
    if room == "runtimes":
        places = (one.place.partition(":") for one in ENTRIES.values())
        kinds = {kind: module for module, _, kind in places}
    assert _offered(room) == kinds


@pytest.mark.parametrize("room", ROOTS)
def test_no_file_imports_the_face_of_its_own_room(room: str) -> None:
    """It would come to its neighbours by it."""
    paths = {path for path in (SOURCE / room).rglob("*.py") if path.stem != "__init__"}
    modules = {_module(path) for path in paths}
    for path in paths:
        imported = {name for name in _imports(path) if f"{name}.".startswith(f"penjing.{room}.")}
        inside = {name for name in imported if name.count(".") > 2 or name in modules}
        assert inside == imported, f"{path.name} imports {sorted(imported - inside)}"


def test_no_imports_run_in_a_circle() -> None:
    modules = {_module(path).removesuffix(".__init__"): path for path in FILES}

    def file_of(name: str) -> str:
        while name not in modules:
            name = name.rpartition(".")[0]
        return name

    graph = {
        module: {file_of(name) for name in _imports(path)} - {module}
        for module, path in modules.items()
    }
    assert len(list(TopologicalSorter(graph).static_order())) == len(FILES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_file_and_no_function_outgrows_one_idea(path: Path) -> None:
    """The docstring of a function apart; ruff counts arguments and branches."""
    assert len(path.read_text().splitlines()) <= 400
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            begin = node.body[0]
            documented = ast.get_docstring(node) is not None
            told = int(begin.end_lineno or 0) - begin.lineno + 1 if documented else 0
            assert int(node.end_lineno or 0) - node.lineno + 1 - told <= 50, node.name


def test_the_tests_have_the_rooms_of_the_package() -> None:
    tests = Path(__file__).parent
    rooms = {path.parent.relative_to(tests) for path in tests.rglob("test_*.py")}
    assert all((SOURCE / room).is_dir() for room in rooms - OF_THE_REPOSITORY)
    with_files = {path.relative_to(SOURCE).parts[0] for path in SOURCE.glob("*/*.py")}
    assert with_files - {room.parts[0] for room in rooms if room.parts} <= AT_THE_TOP


def test_the_public_face_is_small_and_its_docstring_tells_all_of_it() -> None:
    """`help(penjing)` shows this docstring alone, because there is no `__all__`."""
    tree = ast.parse((SOURCE / "__init__.py").read_text())
    imported = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    names = {name.asname for node in imported for name in node.names} - {"__version__", None}
    assert not hasattr(penjing, "__all__")
    assert len(names) <= 32
    rows = re.findall(r"^    (\w+(?:, \w+)*)(?:  |,?$)", penjing.__doc__ or "", re.MULTILINE)
    told = [name for row in rows for name in row.split(", ")]
    assert sorted(told) == sorted(map(str, names))
    shown = pydoc.plain(pydoc.render_doc(penjing))
    assert len(shown.splitlines()) <= 100, "two screens of 50 lines"
