"""How commands print: prose wraps at words, names that come from files are shown and never obeyed
as control codes, and options are called by their flags."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from penjing.cli.app import as_flags
from penjing.layout import Line, shortened, wrapped
from penjing.printable import in_a_line

if TYPE_CHECKING:
    from penjing.report.terminal import Console


def console(**options: Any) -> Console:
    """The terminal, as rich draws on it."""
    from penjing.report.terminal import Console

    return Console(as_flags, **options)


def width() -> int:
    """The columns of the terminal; of a pipe, 80."""
    return console().width


def print_lines(lines: Iterable[Line]) -> None:
    """Print lines as they are, unbroken; each may come with a style."""
    terminal = console()
    for line in lines:
        text, style = (line, "") if isinstance(line, str) else line
        terminal.print(text, style=style or None, highlight=False, markup=False, soft_wrap=True)


def print_prose(texts: Iterable[str], first: str = "") -> None:
    """Print each text wrapped at words, its further lines indented behind `first`."""
    for text in texts:
        print_lines(wrapped(in_a_line(as_flags(text)), width(), first, " " * max(2, len(first))))


@contextmanager
def doing(what: str) -> Iterator[Callable[[str], None]]:
    """Show on stderr what takes a while, if that is a terminal; the line goes once that is done.

    It is a still line: a thread that draws would disturb what is timed.

    Yields:
        Shows another text instead.
    """
    terminal = console(stderr=True)
    if not terminal.is_terminal:
        yield lambda _: None
        return
    from rich.control import Control
    from rich.segment import ControlType

    erase = Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2))

    def show(stage: str) -> None:
        terminal.control(erase)
        line = shortened(in_a_line(f"{stage} ..."), terminal.width - 1)
        terminal.print(line, end="", highlight=False, markup=False, soft_wrap=True)

    show(what)
    try:
        yield show
    finally:
        terminal.control(erase)
