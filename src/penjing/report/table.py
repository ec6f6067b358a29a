"""Tables of results: the candidates of a fit, and what a file is."""

from __future__ import annotations

from collections.abc import Sequence

from penjing.layout import WIDTH, Column, Laid, shortened, table
from penjing.printable import in_a_line
from penjing.report.answer import milliseconds
from penjing.trials.evaluation.saturation import processor_of, warning
from penjing.trials.judgement.comparison import is_disturbed
from penjing.trials.judgement.wording import (
    UNRELIABLE,
    amount,
    digits,
    figure_digits,
    figure_unit,
    ratio,
)
from penjing.trials.result import Result
from penjing.trials.trial import Status, Trial

CHOSEN, UNSURE = "* ", "?"
"""What is put before the title of the answer, and behind a time that is unreliable."""
GROUPS = {
    Status.BASELINE: "",
    Status.KEPT: "Within the budget",
    Status.OVER_BUDGET: "Over the budget",
    Status.OVER_ON_TEST: "Not confirmed by the test data",
    Status.NOT_TUNED: "Only timed",
    Status.NOT_TRIED: "Not tried",
    Status.FAILED: "Failed",
}
"""By status, in order, what stands over the candidates that came so far."""


def headings(result: Result) -> tuple[str, ...]:
    """Of the candidates' table, with units; the score goes by the metric's own name."""
    words = in_a_line(result.baseline.measurement.metric).split()
    metric = "\n".join(shortened(word, 14) for word in words)
    what = what_of_time(result)
    return (
        "candidate", f"{metric}\n{figure_unit(result.unit)}", f"lost\n{result.unit}",
        f"at most\n{result.unit}",
        f"{what}\n{result.estimated_in or 'ms'}", f"{what} vs.\noriginal",
        "file\nkB",
    )  # fmt: skip


def what_of_time(result: Result) -> str:
    """What the figures of a file's time are: measured, or what stands for it."""
    return {"": "time", "ms": "estimate"}.get(result.estimated_in, "cost")


def rows(result: Result) -> list[tuple[str, ...]]:
    """The cells of the table of all candidates: the original first, then by group and time."""
    return [_row(trial, result) for trial in in_order(result)]


def in_order(result: Result, trials: Sequence[Trial] | None = None) -> list[Trial]:
    """Trials as the table has them: by how far they came, then the fastest first."""
    groups = list(GROUPS)

    def order(trial: Trial) -> tuple[int, float]:
        time = trial.latency.ratio if trial.latency else float("inf")
        return groups.index(trial.status), time

    return sorted(result.everything if trials is None else trials, key=order)


def _row(trial: Trial, result: Result) -> tuple[str, ...]:
    m = trial.measurement
    times, drop = m.latency, None if trial.status == Status.BASELINE else m.drop
    unsure = UNSURE if times is not None and is_disturbed(times) else ""
    return (
        in_a_line(result.named(trial)),
        "" if m.score is None else figure_digits(m.score, result.unit),
        "" if drop is None else digits(drop.drop, result.unit),
        "" if drop is None else digits(drop.bound, result.unit),
        "" if times is None else milliseconds(times.latency_ms),
        "" if times is None else ratio(times.ratio) + unsure,
        "" if m.file_bytes is None else kilobytes(m.file_bytes),
    )


def kilobytes(size: int) -> str:
    """A size with one decimal, or none if it is large.

    >>> kilobytes(40), kilobytes(18_612), kilobytes(97_532_112)
    ('0.04', '18.6', '97,532')
    """
    decimals = 0 if size >= 10**6 else 1 if size >= 100 or not size else 2
    return f"{size / 1000:,.{decimals}f}"


def that_matter(result: Result) -> list[Trial]:
    """The original, the answer, and every candidate that no other one beats in all of loss, time
    and size. If none is left beside the original, all are shown."""
    keys = (result.baseline.key, result.answer.key)
    shown = [trial for trial in result.everything if trial.pareto or trial.key in keys]
    return shown if len(shown) > 1 else list(result.everything)


def candidates_table(
    result: Result, trials: Sequence[Trial] | None = None, width: int = WIDTH
) -> list[tuple[str, str]]:
    """The lines of the candidates' table, each with its style; the answer is in bold.

    Args:
        trials: those to show; by default all.
    """
    shown = in_order(result, trials)
    marks = [CHOSEN if trial.key == result.answer.key else "  " for trial in shown]
    cells = [
        (mark + title, *figures)
        for mark, (title, *figures) in zip(
            marks, (_row(trial, result) for trial in shown), strict=True
        )
    ]
    laid = _laid(result, cells, width)
    lines, group = [(line, "bold") for line in laid.head], ""
    for trial, row in zip(shown, laid.rows, strict=True):
        if GROUPS[trial.status] != group:
            group = GROUPS[trial.status]
            budget = amount(result.max_drop, result.unit)
            of = f" of {budget}" if trial.status == Status.KEPT else ""
            lines.append((f"{group}{of}", "italic"))
        lines += [(line, "bold" if trial.key == result.answer.key else "") for line in row]
    return lines


def _laid(result: Result, cells: Sequence[Sequence[str]], width: int) -> Laid:
    first, *rest = headings(result)
    columns = [
        Column(f"  {first}", fit="wrap", mark=len(CHOSEN)),
        *(Column(heading, right=True) for heading in rest),
    ]
    return table(columns, cells, width)


def legend(result: Result, trials: Sequence[Trial]) -> list[str]:
    """What the marks in the table mean."""
    unsure = any(trial.latency is not None and is_disturbed(trial.latency) for trial in trials)
    return [f"{UNSURE} The {UNRELIABLE}."] if unsure else []


def reasons(result: Result) -> list[str]:
    """Why each candidate came no further, or how its time compares; those with the same reason
    together. And one line for each file that other processors may answer differently."""
    by_reason: dict[str, list[str]] = {}
    for trial in in_order(result):
        if trial.reason and trial.key != result.baseline.key:
            by_reason.setdefault(trial.reason, []).append(result.named(trial))
    lines = [f"{', '.join(titles)}: {reason}" for reason, titles in by_reason.items()]
    return lines + [line for trial in result.everything for line in saturation(result, trial)]


def saturation(result: Result, trial: Trial) -> list[str]:
    """One line if processors without VNNI may answer differently than the file did here."""
    if not result.judged_on:
        return []
    here = processor_of(result.judged_on)
    told = warning(result.named(trial), trial.measurement.saturates, here)
    return [told] if told else []
