"""`penjing advise`: which methods pay, before any training."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from penjing.cli.app import as_flags
from penjing.cli.console import doing, print_lines, width
from penjing.cli.flags import (
    DEVICE,
    SEARCH,
    AsJson,
    Seed,
    TaskArguments,
    TaskName,
    by_field,
    names_of_targets,
)

if TYPE_CHECKING:
    from penjing.search.advice.outlook import Recommended


@dataclass(frozen=True)
class Advise:
    """What `penjing advise` is given."""

    task: TaskName
    target: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="The device (see penjing targets). One that isn't here is judged by its "
            "compiler's estimates, or by MACs and bytes.",
            rich_help_panel=DEVICE,
            autocompletion=names_of_targets,
        ),
    ] = "cpu"
    minutes: Annotated[
        float,
        typer.Option(metavar="MINUTES", help="About how long to try.", rich_help_panel=SEARCH),
    ] = 2.0
    seed: Seed = 0
    task_arg: TaskArguments = None
    as_json: AsJson = False


@by_field
def advise(asked: Advise) -> None:
    """Say which methods pay for a network on a device, without training.

    It tries integers, fewer bits, removed blocks and channels, low rank, sparse and shared weights
    for a moment each, and recommends the command that comes next.
    """
    from penjing.report.advice import advice_lines
    from penjing.search.advice.advise import AdviceOptions
    from penjing.search.advice.advise import advise as run
    from penjing.tasks.reference import with_arguments

    task = with_arguments(asked.task, asked.task_arg or ())
    with doing(f"reading {asked.task}") as show:
        options = AdviceOptions(
            asked.seed, lambda line, share: show(f"[{min(share, 1):4.0%}] {line}")
        )
        advice = run(task, asked.target, asked.minutes, options)
    command = spelled(advice.recommended, task)
    if asked.as_json:
        print(json.dumps({**advice.to_json(), "command": command}))
    else:
        print_lines(advice_lines(advice, command, width(), as_flags))


def spelled(recommended: Recommended, task: str) -> str:
    """What is recommended for a task, as a command line."""
    flags = (f"--{name} {shlex.quote(value)}" for name, value in recommended.options.items())
    return " ".join(["penjing", recommended.function, shlex.quote(task), *flags])
