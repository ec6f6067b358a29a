"""The report as a Markdown page with the answer, all candidates and the plot."""

from __future__ import annotations

from penjing.printable import in_a_line
from penjing.report.answer import answer, certified, how_measured
from penjing.report.table import headings, in_order, legend, reasons, rows
from penjing.trials.judgement.wording import amount, confident
from penjing.trials.result import Result


def page(result: Result) -> str:
    """The report as text."""
    lines = [
        f"# {result.task} on {result.target}",
        "",
        f"**{answer(result)}**",
        "",
        certified(result),
        "",
        "## Candidates",
        "",
        *_table(result),
        "",
        how_measured(result),
        *legend(result, result.everything),
        "",
        "![loss against time](plot.png)",
        "",
        *_section("About the candidates", reasons(result)),
        *_section("What each method gave, on the validation data", result.verdicts),
        *_section("Notes", result.notes),
        *_section("How it was made", _made(result)),
    ]
    return "\n".join(lines)


def _table(result: Result) -> list[str]:
    """All candidates, each with how far it came; the answer in bold."""
    titles = [heading.replace("\n", " ") for heading in headings(result)]
    titles = [*titles, "status"]
    lines = [_row(titles), "|" + "---|" * len(titles)]
    for trial, row in zip(in_order(result), rows(result), strict=True):
        cells = [*row, trial.status.words]
        is_answer = trial.key == result.answer.key
        lines.append(_row([f"**{cell}**" if is_answer and cell else cell for cell in cells]))
    return lines


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _section(title: str, texts: tuple[str, ...] | list[str]) -> list[str]:
    """A heading with a list under it; nothing if the list is empty."""
    lines = [f"- {in_a_line(text)}" for text in texts]
    return [f"## {title}", "", *lines, ""] if lines else []


def _made(result: Result) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    return [
        f"Budget: {amount(result.max_drop, result.unit)}, with {confident(result.confidence)}, "
        f"certified by the {result.certified_by} data.",
        *([f"Limits: {result.aim.limits}."] if result.aim.has_limits else []),
        f"Goal: {result.goal}. Seed: {result.seed}.",
        f"Versions: {versions}.",
    ]
