"""The list of runtimes: found by name and by a file's ending, or one line that says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from penjing.errors import InputError
from penjing.runtimes import registry
from penjing.runtimes.registry import ENTRIES, Entry, find_runtime, installed, runtime_of


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_says_what_its_class_says(name: str) -> None:
    if ENTRIES[name].absent:
        pytest.skip(str(ENTRIES[name].absent))
    assert find_runtime(name).name == name
    assert find_runtime(name).ending == ENTRIES[name].ending
    assert name in installed()


def test_a_misspelt_runtime_is_guessed() -> None:
    with pytest.raises(InputError, match="did you mean 'onnxruntime'"):
        find_runtime("onnxruntme")


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Entry("nowhere:Nothing", ".none", ("no-such-package",), "do this", "nothing")
    monkeypatch.setitem(registry.ENTRIES, "none", entry)
    with pytest.raises(InputError, match=r"needs no-such-package.*do this"):
        find_runtime("none")
    assert "none" not in installed()


def test_a_file_finds_its_runtime_by_its_ending() -> None:
    assert runtime_of(Path("a.onnx")).name == "onnxruntime"
    with pytest.raises(InputError, match=r"\.onnx"):
        runtime_of(Path("a.docx"))
