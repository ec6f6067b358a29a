"""The report as a page for a browser: one file, which needs no network and no other file.

The page is `page.html`, a template. Every text is escaped there, as user's names may hold anything.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from penjing.contract import Json
from penjing.printable import in_a_line, printable
from penjing.report.answer import answer, certified, how_measured
from penjing.report.html import charts
from penjing.report.html.layer_table import ByLayer
from penjing.report.html.recipes import in_short
from penjing.report.table import GROUPS, headings, in_order, legend, reasons, rows
from penjing.trials.judgement.wording import WHAT, amount, confident, digits, ratio
from penjing.trials.prediction import Prediction
from penjing.trials.result import Result
from penjing.trials.trial import Status, Trial

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATE = "page.html"


@dataclass(frozen=True)
class Row:
    """A candidate's row of the table.

    Attributes:
        group: what stands over the row; empty where the row before belongs to the same group.
    """

    group: str
    cells: tuple[str, ...]
    status: str
    is_answer: bool


def page(result: Result, picture: bytes, loading: str, written: date) -> str:
    """The report as HTML.

    Args:
        picture: the plot as a PNG, for readers without JavaScript.
        loading: a program that loads the answer's file; empty if there is none to show.
        written: the day of the report.
    """
    predicted = predictions(result)
    drawn = _drawn(result, predicted)
    return _template().render(
        title=in_a_line(f"{result.task} on {result.target}"),
        answer=in_a_line(answer(result)),
        certified=in_a_line(certified(result)),
        finished=result.finished,
        drawn=drawn,
        library=charts.library() if drawn else "",
        picture=base64.b64encode(picture).decode(),
        headings=[heading.replace("\n", " ") for heading in (*headings(result), "status")],
        rows=_rows(result),
        how_measured=in_a_line(how_measured(result)),
        legend=[in_a_line(line) for line in legend(result, result.everything)],
        recipes=[
            (in_a_line(result.named(t)), in_short(t)) for t in in_order(result) if in_short(t)
        ],
        reasons=[in_a_line(line) for line in reasons(result)],
        predicted=[_cells(result, *pair) for pair in predicted],
        goal=goal_in_words(result),
        layers=ByLayer(result.layers),
        verdicts=[in_a_line(line) for line in result.verdicts],
        notes=[in_a_line(line) for line in result.notes],
        loading=printable(loading),
        made=_made(result, written),
        written=written.isoformat(),
    )


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE)


def _rows(result: Result) -> list[Row]:
    """The candidates as the table has them, by how far they came."""
    table, before = [], ""
    for trial, cells in zip(in_order(result), rows(result), strict=True):
        group = GROUPS[trial.status]
        of = f" of {amount(result.max_drop, result.unit)}" if trial.status == Status.KEPT else ""
        heading = f"{group}{of}" if group != before else ""
        before = group
        is_answer = trial.key == result.answer.key
        table.append(Row(heading, cells, trial.status.words, is_answer))
    return table


def predictions(result: Result) -> list[tuple[Prediction, Trial]]:
    """What was expected of candidates, each with its trial that was scored."""
    pairs = ((made, result.trial(made.key)) for made in result.predictions)
    return [(made, trial) for made, trial in pairs if trial is not None and trial.drop is not None]


def goal_in_words(result: Result) -> str:
    """What the goal makes small."""
    return WHAT.get(result.goal, f"figures, by {result.goal}")


def _cells(result: Result, made: Prediction, trial: Trial) -> tuple[str, ...]:
    """A row of what was expected and measured."""
    assert trial.drop is not None
    share = result.aim.share(trial, result.baseline)
    taken = ratio(share) if math.isfinite(share) else ""
    return (
        in_a_line(result.named(trial)),
        f"{made.epochs:.3g}",
        digits(made.drop, result.unit),
        digits(trial.drop.drop, result.unit),
        digits(trial.drop.bound, result.unit),
        ratio(made.ratio),
        taken,
    )


def _drawn(
    result: Result, predicted: Sequence[tuple[Prediction, Trial]]
) -> dict[str, dict[str, Json]]:
    """The charts that there is something to draw for, by the name of their place in the page."""
    titles = [in_a_line(result.named(trial)) for _, trial in predicted]
    both = list(zip(titles, predicted, strict=True))
    losses = [(name, made.drop, trial.drop.drop) for name, (made, trial) in both if trial.drop]
    shares = [
        (name, made.ratio, share)
        for name, (made, trial) in both
        if math.isfinite(share := result.aim.share(trial, result.baseline))
    ]
    possible = {
        "all": charts.loss_against_time(result),
        "losses": charts.expected_and_measured(losses, f"{result.unit} lost".lstrip()),
        "times": charts.expected_and_measured(shares, f"of the original's {goal_in_words(result)}"),
    }
    return {name: chart for name, chart in possible.items() if chart is not None}


def _made(result: Result, written: date) -> list[tuple[str, str]]:
    """How the result was made: what, and its figure or name."""
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    processor = result.judged_on.get("processor", "")
    told = {
        "task": result.task,
        "target": result.target,
        "machine": result.machine,
        "accuracy judged on": processor if processor and processor not in result.machine else "",
        "budget": f"{amount(result.max_drop, result.unit)}, with {confident(result.confidence)}",
        "limits": result.aim.limits,
        "certified by": f"the {result.certified_by} data" if result.finished else "",
        "goal": result.goal,
        "seed": str(result.seed),
        "versions": versions,
        "report written": written.isoformat(),
    }
    return [(name, in_a_line(str(text))) for name, text in told.items() if text]
