"""Flags that several commands take, and commands that take theirs as one value."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

BUDGET, SEARCH, DEVICE, OUTPUT = "Budget", "Search", "Device", "Output"
"""The groups in which help shows options."""


def names_of_targets(incomplete: str) -> list[str]:
    """The targets that begin so, for the shell's completion."""
    from penjing.targets import all_targets

    return [name for name in all_targets() if name.startswith(incomplete)]


def names_of_runtimes(incomplete: str) -> list[str]:
    """The runtimes that begin so, for the shell's completion."""
    from penjing.runtimes.registry import ENTRIES

    return [name for name in ENTRIES if name.startswith(incomplete)]


def names_of_passes(incomplete: str) -> list[str]:
    """The passes that begin so, for the shell's completion."""
    from penjing.passes import PASSES

    return [name for name in PASSES if name.startswith(incomplete)]


def precisions(incomplete: str) -> list[str]:
    """The precisions of an export that begin so, for the shell's completion."""
    from penjing.tools.precision import PRECISIONS

    return [name for name in PRECISIONS if name.startswith(incomplete)]


TaskName = Annotated[
    str,
    typer.Argument(
        metavar="TASK",
        help="What to work on: digits (built in), a file such as mytask.py or "
        "mytask.py:name, or package.module:name.",
    ),
]
TaskArguments = Annotated[
    list[str] | None,
    typer.Option(
        "--task-arg",
        metavar="KEY=VALUE",
        help="An argument of the task's function; may be given several times.",
    ),
]
Python = Annotated[
    str,
    typer.Option(
        metavar="COMMAND",
        help="On an ssh:// device, the Python that has the runtimes.",
        rich_help_panel=DEVICE,
    ),
]
SshConfig = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="For an ssh:// device, the OpenSSH configuration to use.",
        rich_help_panel=DEVICE,
    ),
]
Seed = Annotated[
    int,
    typer.Option(metavar="NUMBER", help="Of everything that is random.", rich_help_panel=SEARCH),
]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print JSON, and nothing else, to stdout.", rich_help_panel=OUTPUT),
]
AllCandidates = Annotated[
    bool,
    typer.Option(
        "--all",
        help="Show all candidates, with reasons, and not only those that matter.",
        rich_help_panel=OUTPUT,
    ),
]


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
