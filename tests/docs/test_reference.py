"""The reference has every public name, and each of these shows an example that ran."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
import types

import pytest

from penjing.errors import PenjingError
from penjing.runtimes.contract import Runtime
from tests.docs.pages import ROOT

FACES = ("penjing", "penjing.passes", "penjing.runtimes")
REFERENCE = "\n".join(path.read_text() for path in sorted((ROOT / "docs/reference").glob("*.md")))
DOCUMENTED = re.findall(r"^\.\. (?:auto[a-z]+|py:data):: ([\w.]+)", REFERENCE, re.M)


def public_names(face: str) -> list[str]:
    """What a user may take from this module: whatever it has without an underscore, but modules
    and what Python itself puts there.

    >>> "fit" in public_names("penjing"), "tasks" in public_names("penjing")
    (True, False)
    """
    names = [name for name in dir(importlib.import_module(face)) if not name.startswith("_")]
    return [name for name in names if _is_public(value_of(f"{face}.{name}"))]


def value_of(name: str) -> object:
    """What a public name stands for; None for a class whose packages aren't installed."""
    face, _, last = name.rpartition(".")
    try:
        return getattr(importlib.import_module(face), last)
    except ModuleNotFoundError:
        return None


def _is_public(value: object) -> bool:
    return not isinstance(value, types.ModuleType) and type(value).__module__ != "__future__"


PUBLIC = [f"{face}.{name}" for face in FACES for name in public_names(face)]


@pytest.mark.parametrize("name", PUBLIC)
def test_the_reference_has_every_public_name(name: str) -> None:
    assert DOCUMENTED.count(name) == 1


def test_the_reference_has_no_name_twice() -> None:
    assert len(DOCUMENTED) == len(set(DOCUMENTED))


def _is_called(value: object) -> bool:
    """Whether a user calls it: a function, or a class; but for errors, which are caught, and the
    single runtimes, which `penjing.runtimes.find` gives."""
    if inspect.isclass(value):
        return not issubclass(value, PenjingError) and Runtime not in value.__mro__[1:]
    return inspect.isroutine(value)


@pytest.mark.parametrize("name", [name for name in PUBLIC if _is_called(value_of(name))])
def test_every_public_name_shows_an_example(name: str) -> None:
    """`tests/test_documentation.py` runs it."""
    examples = doctest.DocTestParser().get_examples(str(inspect.getdoc(value_of(name))))
    run = [example.source for example in examples if doctest.SKIP not in example.options]
    assert any(name.rpartition(".")[2].lower() in source.lower() for source in run)
