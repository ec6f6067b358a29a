"""Reference: a file, a name in it, and what its function is called with."""

from __future__ import annotations

from pathlib import Path

import pytest

from penjing.errors import InputError
from penjing.tasks.reference import find_task

FILE = """
import torch
from penjing import Task

def small(width=4, kind="plain", *, depth=1):
    batches = [(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))]
    assert isinstance(kind, str)
    name = f"{kind} {width} {depth}"
    return Task(torch.nn.Linear(3, 2), torch.zeros(2, 3), batches, batches, name=name)

task = small(7)
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "my tasks (old).py"
    path.write_text(FILE)
    return str(path)


def test_a_name_in_a_file_and_its_arguments(file: str) -> None:
    assert find_task(file).name == "plain 7 1"
    assert find_task(f"{file}:small").name == "plain 4 1"
    task = find_task(f"{file}:small", ["width=16", "kind=wide one", "depth=2"])
    assert task.name == "wide one 16 2"
    assert find_task(f"{file}:small(width=16, kind='wide one')", ["depth=2"]).name == task.name


def test_what_a_task_came_from_finds_it_again(file: str) -> None:
    for text, arguments in ((file, []), (f"{file}:small", []), (f"{file}:small", ["width=9"])):
        task = find_task(text, arguments)
        assert task.source is not None
        assert find_task(task.source).name == task.name


@pytest.mark.parametrize(
    ("behind", "arguments", "line"),
    [
        (":large", [], "has no 'large'; wanted a penjing.Task or a function"),
        (":small", ["widht=3"], r"has no argument 'widht'; it has width, kind, depth"),
        (":small", ["width"], "must be key=value, such as width=16; found 'width'"),
        (":small(3)", [], r"can't be read: \(3\); write them as \(width=16\)"),
        ("", ["width=3"], "is not a function, so it takes no arguments; found width"),
    ],
)
def test_what_is_wrong_is_one_line(file: str, behind: str, arguments: list[str], line: str) -> None:
    with pytest.raises(InputError, match=line):
        find_task(file + behind, arguments)


def test_a_value_that_is_no_literal_is_a_text(file: str) -> None:
    assert find_task(f"{file}:small", ["width=[1,2", "kind=a=b"]).name == "a=b [1,2 1"


def test_digits_takes_no_arguments() -> None:
    with pytest.raises(InputError, match="digits takes no arguments; found size"):
        find_task("digits", ["size=3"])
