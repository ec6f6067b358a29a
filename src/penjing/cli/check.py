"""`penjing check`: files held against the rules of a file of budgets, as a gate in CI."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penjing.cli.app import as_flags
from penjing.cli.console import doing, print_lines, print_prose
from penjing.cli.flags import OUTPUT, AsJson, by_field
from penjing.errors import InputError, MachineError
from penjing.layout import counted
from penjing.printable import in_a_line

if TYPE_CHECKING:
    from penjing.tools.check.check import Checked


@dataclass(frozen=True)
class Check:
    """What `penjing check` is given."""

    budgets: Annotated[
        Path,
        typer.Argument(
            metavar="[FILE]", help="The file of budgets; penjing.toml if none is given."
        ),
    ] = Path("penjing.toml")
    junit: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.xml",
            help="Also write the verdicts there as JUnit XML, which CI systems show.",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    as_json: AsJson = False


@by_field
def check(asked: Check) -> None:
    """Hold files against rules: accuracy, time, bytes, memory; exit 1 if one is broken.

    The rules are in a file, penjing.toml, that lies in your repository. Time is compared only as
    a ratio to a reference file, measured in the same windows.
    """
    from penjing.files import write_atomically
    from penjing.report.junit import junit
    from penjing.tools.check.budgets import read_budgets
    from penjing.tools.check.check import check as run

    budgets = read_budgets(asked.budgets)
    if asked.junit is not None:
        _require_writable(asked.junit)
    with doing(f"reading {asked.budgets}") as say:
        checked = run(budgets, say=say)
    if asked.junit is not None:
        write_atomically(asked.junit, junit(checked))
    if asked.as_json:
        print(json.dumps(checked.to_json()))
    else:
        _print(checked)
    if checked.broken:
        raise typer.Exit(1)


def _require_writable(path: Path) -> None:
    """Raise if the verdicts can't be written there once they are known."""
    if not os.path.isdir(path.parent) or os.path.isdir(path):
        wrong = (
            f"{path} is a folder" if os.path.isdir(path) else f"there is no folder {path.parent}"
        )
        raise InputError(f"`junit` must be a file in a folder that exists; {wrong}; name another")
    if not os.access(path.parent, os.W_OK):
        raise MachineError(f"`junit`: folder {path.parent} can't be written; choose another one")


def _print(checked: Checked) -> None:
    """A line for each rule, then what they add up to."""
    print_lines(
        (in_a_line(verdict.line), "" if verdict.kept else "bold red")
        for verdict in checked.verdicts
    )
    print_prose((as_flags(note) for note in checked.notes), "note: ")
    rules = counted(len(checked.verdicts), "rule")
    told = f"{len(checked.broken)} of {rules} broken" if checked.broken else f"{rules} kept"
    print_lines([f"{told}, on {in_a_line(str(checked.where['processor']))}, one thread"])
