"""Flags that several commands take, and commands that take theirs as one value."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

TaskName = Annotated[
    str, typer.Argument(metavar="TASK", help="'digits', mytask.py, or package.module:name")
]
Python = Annotated[str, typer.Option(help="Of a device: its interpreter that has the runtimes.")]
SshConfig = Annotated[
    Path | None, typer.Option(help="Of a device: OpenSSH's configuration to use.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, to stdout.")]


def by_field(command: Callable[[Any], None]) -> Callable[..., None]:
    """A command whose arguments and options are the fields of the dataclass that it takes.

    Typer reads a function's signature, so the command gets one of the fields' names, types and
    defaults. A field's default must be a value, not a `default_factory`.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Greeting:
    ...     name: str
    ...     times: int = 1
    >>> @by_field
    ... def greet(asked: Greeting) -> None:
    ...     print(asked.name * asked.times)
    >>> inspect.signature(greet)
    <Signature (name: str, times: int = 1)>
    >>> greet(name="hello", times=2)
    hellohello
    """
    (taken,) = (hint for name, hint in get_type_hints(command).items() if name != "return")
    hints = get_type_hints(taken, include_extras=True)
    assert all(field.default_factory is MISSING for field in fields(taken))

    @wraps(command)
    def called(**given: Any) -> None:
        command(taken(**given))

    called.__annotations__ = hints
    called.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                field.name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=inspect.Parameter.empty if field.default is MISSING else field.default,
                annotation=hints[field.name],
            )
            for field in fields(taken)
        ]
    )
    return called
