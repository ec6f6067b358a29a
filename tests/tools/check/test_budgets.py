"""Budgets: what a file of budgets says, and one line for each thing that is wrong with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from penjing.errors import InputError
from penjing.tools.check.budgets import read_budgets
from penjing.tools.check.rules import RULES

GOOD = """
task = "task.py:small(width=8)"
reference = "old/model.onnx"
confidence = 0.9

[[file]]
path = "new/model.onnx"
max_kb = 200
max_time_ratio = 1.0

[[file]]
path = "/elsewhere/model.onnx"
runtime = "onnxruntime"
reference = "other.xml"
reference_runtime = "openvino"
max_drop_to_reference = 1
no_operators_on = ["cpu", "xnnpack"]
"""


def _written(folder: Path, text: str) -> Path:
    (folder / "penjing.toml").write_text(text)
    return folder / "penjing.toml"


def test_paths_are_relative_to_the_file_and_what_is_at_the_top_holds_for_all(
    tmp_path: Path,
) -> None:
    budgets = read_budgets(_written(tmp_path, GOOD))
    first, second = budgets.files
    assert budgets.task == f"{tmp_path}/task.py:small(width=8)"
    assert (budgets.confidence, budgets.seconds) == (0.9, 5.0)
    assert first.file.path == tmp_path / "new/model.onnx"
    assert first.reference is not None
    assert first.reference.path == tmp_path / "old/model.onnx"
    assert first.limits == {"max_kb": 200, "max_time_ratio": 1.0}
    assert second.file.path == Path("/elsewhere/model.onnx")
    assert second.file.name == "/elsewhere/model.onnx in onnxruntime"
    assert second.reference is not None
    assert second.reference.runtime == "openvino"


def test_a_task_of_a_module_is_no_path(tmp_path: Path) -> None:
    text = GOOD.replace("task.py:small(width=8)", "package.module:task")
    assert read_budgets(_written(tmp_path, text)).task == "package.module:task"


FILE = '[[file]]\npath = "a.onnx"\n'


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[[file", r"is not valid TOML: .*; correct it there"),
        ("x = " + 3000 * "[", r"is not valid TOML: it is nested too deeply; write plain tables"),
        ("", r"must have a table \[\[file\]\] for each file to check; found none; write"),
        ("file = 3", r"must have a table .*; found file = 3; write \[\[file\]\]"),
        ("[file]\npath = 'a'", r"must have a table .*; found file = \{\"path\": \"a\"\}; write"),
        ("file = [1]", r", file 1 must be a table; found 1; write \[\[file\]\]"),
        ("[[file]]\nmax_kb = 1", r', file 1 has no path; write path = "model\.onnx"'),
        ("[[file]]\npath = 3", r", file 1: path must be text in quotes; found 3"),
        ('[[file]]\npath = "a\\u0000b"', r", file 1: path must be text in quotes; found"),
        (FILE, r", file a\.onnx has no rule; add one of max_kb, no_operators_on, "),
        (FILE + "max_bk = 1", r", file a\.onnx: unknown key max_bk; did you mean max_kb\?"),
        (FILE + "colour = 1", r", file a\.onnx: unknown key colour; keys are path, runtime, "),
        ("max_kb = 1\n" + FILE, r"toml: unknown key max_kb; it belongs below a \[\[file\]\]"),
        (FILE + "seconds = 1", r"unknown key seconds; it belongs to the top, above the first"),
        ("tsak = 'a'\n" + FILE, r"toml: unknown key tsak; did you mean task\?"),
        ("task = 3\n" + FILE, r"toml: task must be text in quotes; found 3"),
        ("seconds = 0\n" + FILE, r"toml: seconds must be a number above 0; found 0"),
        ("confidence = 95\n" + FILE, r"confidence must be at least 0\.5 and below 1; found 95"),
        (FILE + "max_drop = 1", r", file a\.onnx: max_drop needs a task, .*; write task = "),
        (FILE + "max_time_ratio = 1", r"max_time_ratio needs a reference, .*; write reference = "),
        ('reference = "./a.onnx"\n' + FILE + "max_time_ratio = 1",
         r"reference is the file itself, so max_time_ratio would always hold; name another file"),
        (FILE + 'max_kb = 1\nreference_runtime = "litert"',
         r"reference_runtime says what runs the reference of this file, but the file has none"),
        ('task = "t.py"\n' + FILE + "min_score = 1\nmax_score = 1",
         r"has both min_score and max_score; keep min_score if a higher figure"),
        (2 * (FILE + "max_kb = 1\n"), r", file a\.onnx is there twice; put all rules of a file"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_with_its_place(text: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=line) as error:
        read_budgets(_written(tmp_path, text))
    assert str(error.value).startswith(str(tmp_path / "penjing.toml"))
    assert "\n" not in str(error.value)


WRONG = {
    "max_kb": ("0", "-1", "nan", "inf", '"200 kB"', "true", "1e400", f"0x{'f' * 9000}"),
    "no_operators_on": ('"cpu"', "[]", '["CPU"]', '["dsp"]', "[1]", "[[[]]]"),
    "no_saturation": ("false", "1", '"never"'),
    "max_memory_mb": ("0", "1979-05-27"),
    "max_time_ratio": ("0", '"1.0x"'),
    "min_score": ("nan", '"98 %"', "false"),
    "max_score": ("inf", "[1]"),
    "min_same_decisions": ("98", "-0.1", "true"),
    "max_drop": ("-1", "nan", '"1 %"', "{points = 1}"),
    "max_drop_to_reference": ("-1", "nan"),
}
"""By rule, values that it can't have."""


@pytest.mark.parametrize("key", RULES)
def test_a_limit_of_the_wrong_kind_is_told_with_what_is_wanted(key: str, tmp_path: Path) -> None:
    for value in WRONG[key]:
        wanted = re.escape(RULES[key].value.wanted)
        with pytest.raises(InputError, match=rf"file a\.onnx: {key} must be {wanted}; found "):
            read_budgets(_written(tmp_path, f"{FILE}{key} = {value}"))


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file .*absent\.toml; name the file of budgets"):
        read_budgets(tmp_path / "absent.toml")
    with pytest.raises(InputError, match=r"can't be read: Is a directory"):
        read_budgets(tmp_path)
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"bytes\.toml is not valid TOML: 'utf-8' codec"):
        read_budgets(tmp_path / "bytes.toml")
