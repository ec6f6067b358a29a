"""How far a fit is, while it runs: stage, best so far, time left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from penjing.report.terminal import Console


@contextmanager
def display(console: Console, silent: bool) -> Iterator[Any]:
    """What a fit calls with its stage, the share done and the best so far; plain lines into a pipe.

    Args:
        silent: whether nothing is to be shown.
    """
    if silent or not console.is_terminal:
        last = ""

        def say(stage: str, share: float, best: str) -> None:
            nonlocal last
            head = stage.split(":")[0]
            if not silent and head != last:
                console.print(
                    f"[{share:4.0%}] {head}; best so far: {best}", markup=False, soft_wrap=True
                )
                last = head

        yield say
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        item = bar.add_task("starting", total=1.0)
        yield lambda stage, share, best: bar.update(
            item, completed=share, description=f"{stage}  [dim]best so far: {best}[/]"
        )
