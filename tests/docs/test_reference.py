"""The reference has every public name, and each of these shows an example that ran."""

from __future__ import annotations

import importlib
import inspect
import re
import types

import pytest

from penjing.errors import PenjingError
from tests.docs.pages import ROOT

FACES = ("penjing", "penjing.passes", "penjing.runtimes")
REFERENCE = "\n".join(path.read_text() for path in sorted((ROOT / "docs/reference").glob("*.md")))
DOCUMENTED = re.findall(r"^\.\. auto[a-z]+:: ([\w.]+)", REFERENCE, re.M)


def public_names(face: str) -> list[str]:
    """What a user may take from this module: whatever it has without an underscore, but modules
    and what Python itself puts there.

    >>> "fit" in public_names("penjing"), "tasks" in public_names("penjing")
    (True, False)
    """
    module = importlib.import_module(face)
    names = [name for name in dir(module) if not name.startswith("_")]
    return [name for name in names if _is_public(getattr(module, name))]


def _is_public(value: object) -> bool:
    return not isinstance(value, types.ModuleType) and type(value).__module__ != "__future__"


PUBLIC = [f"{face}.{name}" for face in FACES for name in public_names(face)]


@pytest.mark.parametrize("name", PUBLIC)
def test_the_reference_has_every_public_name(name: str) -> None:
    assert DOCUMENTED.count(name) == 1


def test_the_reference_has_no_name_twice() -> None:
    assert len(DOCUMENTED) == len(set(DOCUMENTED))


def _value(name: str) -> object:
    face, _, last = name.rpartition(".")
    return getattr(importlib.import_module(face), last)


def _is_called(value: object) -> bool:
    """Whether a user calls it: a function, or a class that isn't an error's."""
    is_error = inspect.isclass(value) and issubclass(value, PenjingError)
    return inspect.isroutine(value) or (inspect.isclass(value) and not is_error)


@pytest.mark.parametrize("name", [name for name in PUBLIC if _is_called(_value(name))])
def test_every_public_name_shows_an_example(name: str) -> None:
    """`tests/test_documentation.py` runs it."""
    assert ">>> " in str(inspect.getdoc(_value(name)))
