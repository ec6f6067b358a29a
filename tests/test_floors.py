"""The floors: a file imports only from lower floors, never the package's own face."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import penjing

SOURCE = Path(penjing.__file__).parent
FLOORS = {
    "errors": 1, "files": 1, "printable": 1, "processor": 1, "quiet": 1, "strict_json": 1,
    "telemetry": 1,
    "contract": 2, "task": 2, "batches": 2, "data": 2, "splits": 2, "checks": 2, "overlap": 2,
    "reference": 2, "digits": 2, "targets": 2,
    "arith": 3, "device": 3,
    "network": 4,
    "measure": 5, "tune": 5,
    "passes": 6, "runtimes": 6,
    "search": 7,
    "report": 8,
    "cli": 9, "__main__": 9,
    "__init__": 10,
}  # fmt: skip
FILES = sorted(SOURCE.rglob("*.py"))


def _room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def _imports(path: Path) -> set[str]:
    """Modules of penjing that the file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("penjing"):
            found.add(str(node.module))
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


@pytest.mark.parametrize("room", ["passes", "runtimes"])
def test_no_pass_or_runtime_imports_its_neighbour(room: str) -> None:
    methods = {
        "passes": (
            "binarize", "compensate", "correct_bias", "equalize", "gptq", "merge",
            "mixed_precision", "prune", "quantize", "reconstruct", "ternarize", "tune",
        ),
        "runtimes": ("ethosu", "executorch", "litert", "onnxruntime", "openvino"),
    }[room]  # fmt: skip
    for name in methods:
        others = {f"penjing.{room}.{other}" for other in methods if other != name}
        assert not _imports(SOURCE / room / f"{name}.py") & others


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_file_outgrows_one_idea(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_the_public_face_is_sorted_complete_and_small() -> None:
    names = penjing.__all__
    assert len(names) <= 30
    assert list(names) == sorted(names, key=lambda name: (name.islower(), name))
    assert all(hasattr(penjing, name) for name in names)
