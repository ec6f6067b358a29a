"""The program that commands are added to, and what holds for all of them."""

from __future__ import annotations

from functools import cache
from typing import Annotated

import typer

from penjing.printable import with_flags
from penjing.version import __version__

DEBUG = "--debug"
app = typer.Typer(
    name="penjing",
    help="From a trained PyTorch network to the smaller file that runs best on a device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"penjing {__version__}")
        raise typer.Exit


@app.callback()
def _all_commands(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print it.", callback=_print_version, is_eager=True),
    ] = False,
    debug: Annotated[
        bool, typer.Option(DEBUG, help="Print an error's traceback too; anywhere in the line.")
    ] = False,
) -> None:
    pass


def as_flags(text: str) -> str:
    """The text with the command line's flag in place of each option that it names as Python does.

    >>> as_flags("give another `out`, or `target='cpu'`")
    'give another --out, or --target cpu'
    """
    return with_flags(text, _flags())


@cache
def _flags() -> dict[str, str]:
    """By the name of a parameter in Python, the flag of the command line."""
    commands = typer.main.get_command(app).commands.values()  # type: ignore[attr-defined]
    options = (option for command in commands for option in command.params)
    return {option.name: option.opts[0] for option in options if option.opts[0].startswith("--")}
