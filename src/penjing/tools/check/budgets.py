"""Budgets: the file in which a user sets rules, and what it says once it is read."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penjing.contract import Json
from penjing.errors import InputError
from penjing.tools.check.rules import REFERENCE, RULES, TASK
from penjing.tools.check.values import CONFIDENCE, POSITIVE, TEXT, Value, spelled

FILES = "file"
"""The key of the tables of files."""
OF_ALL: Mapping[str, Value] = {
    TASK: TEXT, REFERENCE: TEXT, "reference_runtime": TEXT, "confidence": CONFIDENCE,
    "seconds": POSITIVE,
}  # fmt: skip
"""The keys at the top, which hold for all files."""
OF_A_FILE: Mapping[str, Value] = {
    "path": TEXT, "runtime": TEXT, REFERENCE: TEXT, "reference_runtime": TEXT,
}  # fmt: skip
"""The keys of a file beside its rules."""
TASK_FILE = re.compile(r"[^()]*\.py($|[:(].*)", re.DOTALL)
"""A task that is named by a file."""


@dataclass(frozen=True)
class Named:
    """A file that is named in a file of budgets.

    Attributes:
        text: as it is named there.
        path: where it is.
        runtime: what runs it; None if its record or its ending decides.
    """

    text: str
    path: Path
    runtime: str | None = None

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"{self.text} in {self.runtime}" if self.runtime else self.text

    @property
    def key(self) -> tuple[Path, str | None]:
        """What two names of the same thing have in common."""
        return self.path.resolve(), self.runtime


@dataclass(frozen=True)
class FileBudget:
    """The rules of one file.

    Attributes:
        place: where they are, for messages.
        limits: by rule.
    """

    place: str
    file: Named
    reference: Named | None = None
    limits: dict[str, Any] = field(default_factory=dict)

    def needs(self, what: str) -> list[str]:
        """The rules that need this beside the file."""
        return [key for key in self.limits if what in RULES[key].needs]


@dataclass(frozen=True)
class Budgets:
    """What a file of budgets says.

    Attributes:
        source: the file itself.
        task: what to judge files by, as `penjing.find_task` takes it; None if it names none.
        confidence: of bounds on what a file loses.
        seconds: how long a measurement of time takes.
    """

    source: Path
    files: tuple[FileBudget, ...]
    task: str | None = None
    confidence: float = 0.95
    seconds: float = 5.0


def read_budgets(source: Path) -> Budgets:
    r"""Read a file of budgets. Paths in it are relative to its folder.

    Raises:
        InputError: it doesn't exist or isn't TOML; or a key is unknown, missing, of the wrong type
            or contradicts another one. The message names the file and the key.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     source = Path(folder, "penjing.toml")
    ...     size = source.write_text("[[file]]\npath = 'model.onnx'\nmax_kb = 200")
    ...     read_budgets(source).files[0].limits
    {'max_kb': 200}
    """
    given = _parsed(source)
    tables = given.pop(FILES, None)
    place = str(source)
    _require_known(place, given, OF_ALL, [*OF_ALL, FILES])
    if not isinstance(tables, list) or not tables:
        what = "found none" if tables is None else f"found {FILES} = {spelled(tables)}"
        raise InputError(
            f"{place} must have a table [[{FILES}]] for each file to check; {what}; write "
            f'[[{FILES}]], and below it path = "model.onnx" and rules such as max_kb = 200'
        )
    files = tuple(
        _file_budget(source, number, table, given) for number, table in enumerate(tables, start=1)
    )
    _require_different(files)
    task = given.pop(TASK, None)
    for key in (REFERENCE, "reference_runtime"):
        given.pop(key, None)
    return Budgets(source, files, None if task is None else _beside(source, task), **given)


def _parsed(source: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(source.read_bytes().decode())
    except FileNotFoundError:
        raise InputError(
            f"no file {source}; name the file of budgets, or write one called penjing.toml"
        ) from None
    except OSError as error:
        raise InputError(f"{source} can't be read: {error.strerror}") from error
    except RecursionError:
        raise InputError(
            f"{source} is not valid TOML: it is nested too deeply; write plain tables"
        ) from None
    except ValueError as error:  # also what isn't UTF-8
        raise InputError(f"{source} is not valid TOML: {error}; correct it there") from error


def _file_budget(source: Path, number: int, table: Json, common: Mapping[str, Any]) -> FileBudget:
    """A table of a file, with what holds for all of them."""
    place = f"{source}, {FILES} {number}"
    if not isinstance(table, dict):
        raise InputError(f"{place} must be a table; found {spelled(table)}; write [[{FILES}]]")
    if "path" not in table:
        raise InputError(f'{place} has no path; write path = "model.onnx", the file to check')
    of_rules = {key: rule.value for key, rule in RULES.items()}
    allowed = {**OF_A_FILE, **of_rules}
    _require_fits(place, "path", table["path"], TEXT)
    place = f"{source}, {FILES} {table['path']}"
    _require_known(place, table, allowed, allowed)
    limits = {key: table[key] for key in RULES if key in table}
    if not limits:
        raise InputError(f"{place} has no rule; add one of {', '.join(RULES)}")
    file = Named(table["path"], source.parent / table["path"], table.get("runtime"))
    budget = FileBudget(place, file, _reference(source, place, table, common), limits)
    _require_complete(budget, common)
    return budget


def _reference(
    source: Path, place: str, table: Mapping[str, Any], common: Mapping[str, Any]
) -> Named | None:
    """The file's own reference, or that of all files."""
    holder = table if REFERENCE in table else common
    if "reference_runtime" in table and REFERENCE not in table:
        raise InputError(
            f"{place}: reference_runtime says what runs the reference of this file, but the file "
            "has none of its own; add reference, or move reference_runtime to the top"
        )
    if REFERENCE not in holder:
        return None
    text = holder[REFERENCE]
    return Named(text, source.parent / text, holder.get("reference_runtime"))


def _require_complete(budget: FileBudget, common: Mapping[str, Any]) -> None:
    """Raise InputError if a rule lacks what it needs, or contradicts another one."""
    place, reference = budget.place, budget.reference
    by_task, by_reference = budget.needs(TASK), budget.needs(REFERENCE)
    if by_task and TASK not in common:
        raise InputError(
            f"{place}: {by_task[0]} needs a task, whose test data judges the file; write task = "
            '"task.py" at the top, as for penjing fit'
        )
    if by_reference and reference is None:
        raise InputError(
            f"{place}: {by_reference[0]} needs a reference, which the file is compared with; write "
            'reference = "original.onnx"'
        )
    if by_reference and reference is not None and reference.key == budget.file.key:
        raise InputError(
            f"{place}: reference is the file itself, so {by_reference[0]} would always hold; name "
            "another file"
        )
    if {"min_score", "max_score"} <= budget.limits.keys():
        raise InputError(
            f"{place} has both min_score and max_score; keep min_score if a higher figure of the "
            "metric is better, else max_score"
        )


def _require_different(files: Iterable[FileBudget]) -> None:
    seen: dict[tuple[Path, str | None], FileBudget] = {}
    for budget in files:
        if budget.file.key in seen:
            raise InputError(
                f"{budget.place} is there twice; put all rules of a file into one [[{FILES}]]"
            )
        seen[budget.file.key] = budget


def _require_known(
    place: str, given: Mapping[str, Any], allowed: Mapping[str, Value], named: Iterable[str]
) -> None:
    """Raise InputError for a key that isn't allowed, or a value of the wrong kind."""
    for key, value in given.items():
        if key not in allowed:
            raise InputError(f"{place}: unknown key {key[:80]}; {_guess(key, [*named])}")
        _require_fits(place, key, value, allowed[key])


def _guess(key: str, named: list[str]) -> str:
    if key in RULES or key in OF_A_FILE:
        return f"it belongs below a [[{FILES}]]"
    if key in OF_ALL:
        return f"it belongs to the top, above the first [[{FILES}]]"
    near = difflib.get_close_matches(key, named, 1)
    return f"did you mean {near[0]}?" if near else f"keys are {', '.join(named)}"


def _require_fits(place: str, key: str, value: Any, kind: Value) -> None:
    if not kind.fits(value):
        raise InputError(f"{place}: {key} must be {kind.wanted}; found {spelled(value)}")


def _beside(source: Path, task: str) -> str:
    """The task; one that is named by a file is looked for in the folder of the file of budgets.

    >>> [_beside(Path("ci/penjing.toml"), task) for task in ("task.py:small", "digits")]
    ['ci/task.py:small', 'digits']
    """
    return str(source.parent / task) if TASK_FILE.fullmatch(task) else task
