"""Reference: from the words that name a task to the task."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from penjing.errors import InputError, PenjingError
from penjing.tasks.task import Task
from penjing.tasks.torchvision_operators import declare_missing

CALL = re.compile(r"(.*?(?:\.py|:\w+)|digits)\((.*)\)")
"""A file or a name in one, and in parentheses what a function is called with."""
OURS = str(Path(__file__).parent)


def find_task(text: str, **arguments: Any) -> Task:
    """The task that a text names.

    Args:
        text: `"digits"` (built in); a Python file with a `task`, which is a `Task` or a function
            that returns one; or such a thing of another name, as `"mytask.py:small"` or
            `"package.module:name"`. The arguments of a function may be part of the text, as in
            `"mytask.py:small(width=16)"`.
        arguments: the arguments of a function.

    Raises:
        InputError: there is no such task; the file raises an exception, with the line where it
            did; or the function takes no such argument.

    >>> find_task("digits").name
    'digits'
    """
    place, given = _place_and_arguments(text)
    given |= arguments
    if place == "digits":
        from penjing.tasks.digits import digits

        if given:
            raise InputError(f"the task digits takes no arguments; found {', '.join(given)}")
        return digits()
    declare_missing()  # the task's file may import torchvision
    wanted = "a penjing.Task or a function that returns one"
    name, task = named(place, "task", wanted, "'digits', a file such as mytask.py")
    if given:
        _require_arguments(place, name, task, given)
    source = _in_words(place, given)
    if callable(task):
        function = task
        task = guarded(source, lambda: function(**given))
    if not isinstance(task, Task):
        raise InputError(f"{name!r} in {place} is a {type(task).__name__}; wanted a penjing.Task")
    return dataclasses.replace(task, source=task.source or source)


def with_arguments(text: str, arguments: Sequence[str]) -> str:
    """The text that names a task with these arguments, as `find_task` reads it.

    Args:
        arguments: each as `"width=16"`. Values that Python can read as a number, a string in
            quotes, a list and so on are read so; every other value is a string.

    Raises:
        InputError: an argument has another form.

    >>> with_arguments("mytask.py:small", ["width=16", "kind=plain"])
    "mytask.py:small(width=16, kind='plain')"
    """
    place, given = _place_and_arguments(text)
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not key.isidentifier():
            raise InputError(f"`task_arg` must be key=value, such as width=16; found {argument!r}")
        given[key] = _value(value)
    return _in_words(place, given)


def _in_words(place: str, given: Mapping[str, Any]) -> str:
    """The inverse of `_place_and_arguments`."""
    inside = ", ".join(f"{key}={value!r}" for key, value in given.items())
    return f"{place}({inside})" if given else place


def _place_and_arguments(text: str) -> tuple[str, dict[str, Any]]:
    """Where the task is, and what its function is called with."""
    call_in_words = CALL.fullmatch(text)
    if call_in_words is None:
        return text, {}
    place, inside = call_in_words.groups()
    try:
        call = ast.parse(f"f({inside})", mode="eval").body
        assert isinstance(call, ast.Call)
        if call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError("wanted names, as width=16")
        return place, {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise InputError(
            f"the arguments of {place} can't be read: ({inside}); write them as (width=16)"
        ) from error


def _value(text: str) -> Any:
    """A literal of Python's, or the text itself.

    >>> _value("16"), _value("small")
    (16, 'small')
    """
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def _require_arguments(place: str, name: str, task: Any, given: Mapping[str, Any]) -> None:
    """Raise InputError for arguments that a task doesn't take."""
    if not callable(task):
        raise InputError(
            f"{name!r} in {place} is not a function, so it takes no arguments; found "
            f"{', '.join(given)}"
        )
    takes = inspect.signature(task).parameters
    if any(known.kind is inspect.Parameter.VAR_KEYWORD for known in takes.values()):
        return
    for key in given:
        if key not in takes:
            known = ", ".join(takes) or "none"
            raise InputError(f"{name}() in {place} has no argument {key!r}; it has {known}")


def named(text: str, name: str, wanted: str, known: str) -> tuple[str, Any]:
    """What `text` names in a Python file or a module of the user's, and how that is called there.

    Args:
        text: a Python file, in which it has this `name`; `"file.py:name"`; or
            `"package.module:name"`.
        wanted: what it should be, for the message.
        known: what `text` may be instead, for the message.

    Raises:
        InputError: there is none, or the file raises; with the line where it did.
    """
    file, _, other = text.rpartition(":") if ".py:" in text else (text, "", "")
    if file.endswith(".py"):
        path, name = Path(file), other or name
        if not path.is_file():
            raise InputError(f"{name} file {file} doesn't exist; check its name")
        value = getattr(guarded(file, lambda: _load(path)), name, None)
    elif ":" in text:
        module, _, name = text.partition(":")
        sys.path.insert(0, "")
        value = getattr(guarded(text, lambda: importlib.import_module(module)), name, None)
    else:
        raise InputError(f"no {name} {text!r}; wanted {known}, or package.module:name")
    if value is None:
        raise InputError(f"{text} has no {name!r}; wanted {wanted}")
    return name, value


def _load(path: Path) -> ModuleType:
    sys.path.insert(0, str(path.parent.resolve()))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def guarded(text: str, call: Callable[[], Any]) -> Any:
    """What `call` gives; whatever the user's code raises becomes one line with its place."""
    try:
        return call()
    except PenjingError:
        raise
    except ModuleNotFoundError as error:
        raise InputError(
            f"{text} needs the module {error.name!r}, which isn't installed"
        ) from error
    except (Exception, SystemExit) as error:
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if not frame.filename.startswith(OURS)
        ]
        frames = [frame for frame in frames if not frame.filename.startswith("<")] or frames
        frames = [frame for frame in frames if "site-packages" not in frame.filename] or frames
        where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        lines = [line.strip() for line in str(error).splitlines()] or [""]
        line = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
        raise InputError(f"{text} raised {type(error).__name__}{where}: {line[:300]}") from error
