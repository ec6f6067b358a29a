"""Reference: from the words that name a task to the task."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from penjing.errors import InputError, PenjingError
from penjing.tasks.task import Task

OURS = str(Path(__file__).parent)


def find_task(text: str) -> Task:
    """The task that `text` names.

    Args:
        text: `"digits"` (built in), a Python file with a `task` or a function `task()`, or
            `"package.module:name"`.

    Raises:
        InputError: nothing of that name, or the file raises; with the line where it did.
    """
    if text == "digits":
        from penjing.tasks.digits import digits

        return digits()
    wanted = "a penjing.Task or a function returning one"
    name, task = named(text, "task", wanted, "'digits', a file such as mytask.py")
    if callable(task):
        task = guarded(text, task)
    if not isinstance(task, Task):
        raise InputError(f"{name!r} in {text} is a {type(task).__name__}; wanted a penjing.Task")
    return dataclasses.replace(task, source=task.source or text)


def named(text: str, name: str, wanted: str, known: str) -> tuple[str, Any]:
    """What `text` names in a Python file or a module of the user's, and how that is called there.

    Args:
        text: a Python file, in which it has this `name`, or `"package.module:name"`.
        wanted: what it should be, for the message.
        known: what else `text` may be, for the message.

    Raises:
        InputError: there is none, or the file raises; with the line where it did.
    """
    if text.endswith(".py"):
        path = Path(text)
        if not path.is_file():
            raise InputError(f"{name} file {text} doesn't exist; give a .py file or {known}")
        value = getattr(guarded(text, lambda: _load(path)), name, None)
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
