"""The files of a report, written beside a result."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from penjing.files import write_atomically
from penjing.report import markdown
from penjing.report.html.page import page
from penjing.report.plot import plot
from penjing.tools.export import loading_of
from penjing.trials.result import Result


def write_report(result: Result, folder: Path) -> Path:
    """Write `report.md`, `plot.png` and `report.html` into the folder; returns the last one's path.

    Args:
        folder: of the result, where the answer's file lies too.
    """
    picture = plot(result)
    write_atomically(folder / "plot.png", picture)
    write_atomically(folder / "report.md", markdown.page(result))
    path = folder / "report.html"
    write_atomically(path, page(result, picture, _loading(result, folder), date.today()))
    return path


def _loading(result: Result, folder: Path) -> str:
    """A program that loads the answer's file, from within the folder; empty if there is none."""
    if result.artifact is None:
        return ""
    answer = result.answer
    return loading_of(folder / result.artifact, answer.runtime, answer.sha256, result.artifact)
