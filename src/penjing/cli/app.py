"""The program that commands are added to, and what holds for all of them."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

import typer

from penjing.cli.help import Command, Group
from penjing.printable import with_flags
from penjing.version import __version__

NAME = "penjing"
DEBUG = "--debug"
app = typer.Typer(
    name=NAME,
    cls=Group,
    help="From a trained PyTorch network to the smaller file that runs best on a device.",
    epilog="""
        A first try, with a small task that comes with penjing:
          penjing fit digits --minutes 2 --out fitted
        With a task of your own:
          penjing fit mytask.py --target cpu --max-drop 1.0 --minutes 10 --out fitted
        """,
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def command(function: Any, example: str) -> None:
    """Add a command to the program.

    Args:
        example: command lines, each under a line that ends in a colon and says what it is for.
    """
    app.command(cls=Command, epilog=example)(function)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"{NAME} {__version__}")
        raise typer.Exit


@app.callback()
def _all_commands(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version, and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            DEBUG, help="With an error, print its traceback too; anywhere in the command line."
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        assert isinstance(context.command, Group)
        typer.echo(context.command.overview(context), nl=False)
        raise typer.Exit(2)


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
