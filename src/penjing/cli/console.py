"""How commands print: names that come from files are shown and never obeyed as control codes, and
options are called by their flags."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from penjing.cli.app import as_flags

if TYPE_CHECKING:
    from penjing.report.terminal import Console


def console(**options: Any) -> Console:
    """The terminal, as rich draws on it."""
    from penjing.report.terminal import Console

    return Console(as_flags, **options)


def print_lines(lines: Iterable[str], indent: str = "") -> None:
    """Print each line as it is, however narrow the terminal."""
    terminal = console()
    for line in lines:
        terminal.print(f"{indent}{line}", highlight=False, markup=False, soft_wrap=True)
