"""Charts of the page: loss against time, and what was expected against what was measured.

Each is a Vega-Lite specification as plain data, which a browser draws and answers the pointer on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from penjing.contract import Json
from penjing.printable import in_a_line
from penjing.report.answer import milliseconds, time_axis
from penjing.report.html.recipes import in_short
from penjing.report.plot import highest
from penjing.report.table import GROUPS, in_order, kilobytes
from penjing.trials.judgement.comparison import is_disturbed
from penjing.trials.judgement.wording import UNRELIABLE, amount, digits, lost_of, measured, ratio
from penjing.trials.result import Result
from penjing.trials.trial import Status, Trial

ANSWER, ORIGINAL = "The answer", "The original"
COLOURS = {
    ANSWER: "#2b9348",
    ORIGINAL: "#e08e0b",
    GROUPS[Status.KEPT]: "#3b82f6",
    GROUPS[Status.OVER_BUDGET]: "#8b929c",
    GROUPS[Status.OVER_ON_TEST]: "#a05cd6",
}
"""By what a candidate is; each can be told from light and from dark paper."""
RED, GREY = "#d9484c", "#8b929c"
HEIGHT, SMALL = 340, 240
ENOUGH = 3
"""Fewer points than this are no chart."""
TOLD = {
    "title": "candidate", "recipe": "recipe", "told_time": "time", "told_loss": "loss",
    "file": "file", "runtime": "runtime",
}  # fmt: skip
"""What the pointer shows of a candidate, and what that is called."""


@cache
def library() -> str:
    """The JavaScript that draws the charts: Vega, Vega-Lite and Vega-Embed, of the versions for
    which Altair writes specifications. It defines `vegaEmbed`."""
    import altair
    import vl_convert

    version = ".".join(altair.SCHEMA_VERSION.split(".")[:2])
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", version)
    return bundle.replace("</script", r"<\/script")


def loss_against_time(result: Result) -> dict[str, Json] | None:
    """Every candidate that was timed and scored, with its bound, the budget, and a line through
    those that none beats in both; None if there is no candidate."""
    import altair as alt

    shown = [trial for trial in in_order(result) if trial.latency and trial.drop]
    if not shown:
        return None
    rows = [_row(trial, result) for trial in shown]
    metric = in_a_line(result.baseline.measurement.metric)
    x = alt.X("time:Q", title=time_axis(result), scale=_from_zero(rows))
    y = alt.Y(
        "loss:Q", title=f"{lost_of(metric, result.unit)} on validation", scale=_losses(rows, result)
    )
    every = alt.Chart(alt.InlineData(values=rows))
    chosen = alt.selection_point(name="kinds", fields=["kind"], bind="legend")
    kinds = [kind for kind in COLOURS if any(row["kind"] == kind for row in rows)]
    budget = alt.Chart(alt.InlineData(values=[{"loss": result.max_drop, "text": _budget(result)}]))
    front = alt.Chart(alt.InlineData(values=front_of(rows)))
    layers = [
        budget.mark_rule(strokeDash=[5, 4], color=RED).encode(y=y),
        budget.mark_text(align="right", dy=-7, dx=-3, color=RED, x="width").encode(
            y=y, text="text:N"
        ),
        front.mark_line(interpolate="step-after", color=GREY, opacity=0.6).encode(x=x, y=y),
        every.mark_rule(color=GREY, opacity=0.5).encode(x=x, y=y, y2="top:Q"),
        every.mark_point(filled=True)
        .encode(
            x=x,
            y=y,
            color=alt.Color(
                "kind:N",
                title=None,
                scale=alt.Scale(domain=kinds, range=[COLOURS[kind] for kind in kinds]),
                legend=alt.Legend(orient="bottom", columns=2),
            ),
            shape=alt.Shape(
                "gone:N",
                scale=alt.Scale(domain=[False, True], range=["circle", "triangle-up"]),
                legend=None,
            ),
            size=alt.Size("size:Q", scale=None, legend=None),
            opacity=alt.when(chosen).then(alt.value(0.95)).otherwise(alt.value(0.12)),
            tooltip=[alt.Tooltip(f"{name}:N", title=said) for name, said in TOLD.items()],
        )
        .add_params(chosen),
    ]
    return _specification(alt.layer(*layers).properties(width="container", height=HEIGHT))


def _row(trial: Trial, result: Result) -> dict[str, Json]:
    """A point, with what is told of it. What lost too much is drawn at the upper edge."""
    assert trial.latency is not None
    assert trial.drop is not None
    most, size = highest(result), trial.measurement.file_bytes
    lost, bound = trial.drop.drop, trial.drop.bound
    told = f"{measured(lost, result.unit)}, at most {digits(bound, result.unit)}"
    if trial.status == Status.BASELINE:
        bound, told = lost, "none, with it all others are compared"
    unsure = f"; the {UNRELIABLE}" if is_disturbed(trial.latency) else ""
    taken = f"{milliseconds(trial.latency.latency_ms)} {result.estimated_in or 'ms'}"
    whole = result.baseline.latency or trial.latency
    share = f"{ratio(trial.latency.ratio)} of the original's"
    return {
        "kind": _kind(trial, result),
        "title": in_a_line(result.named(trial)),
        "recipe": in_short(trial) or "as it came",
        "time": trial.latency.ratio * whole.latency_ms,  # as only ratios are of one sitting
        "unsure": bool(unsure),
        "loss": min(lost, most),
        "top": min(max(bound, lost), most),
        "gone": lost > most,
        "size": 170 if trial.key == result.answer.key else 80,
        "told_time": f"{taken}, {share}{unsure}",
        "told_loss": told,
        "file": "not measured" if size is None else f"{kilobytes(size)} kB",
        "runtime": in_a_line(trial.runtime),
    }


def _kind(trial: Trial, result: Result) -> str:
    if trial.key == result.answer.key:
        return ANSWER
    return ORIGINAL if trial.status == Status.BASELINE else GROUPS[trial.status]


def _budget(result: Result) -> str:
    return f"budget: {amount(result.max_drop, result.unit)}"


def front_of(rows: Sequence[Mapping[str, Json]]) -> list[Mapping[str, Json]]:
    """Those that no other one beats in both time and loss, the fastest first, without those whose
    timing was disturbed.

    >>> rows = [{"time": 1, "loss": 3}, {"time": 2, "loss": 1}, {"time": 3, "loss": 2}]
    >>> [row["time"] for row in front_of(rows)]
    [1, 2]
    """
    front: list[Mapping[str, Json]] = []
    sure = (row for row in rows if not row.get("unsure"))
    for row in sorted(sure, key=lambda row: (row["time"], row["loss"])):
        if not front or row["loss"] < front[-1]["loss"]:
            front.append(row)
    return front


def _from_zero(rows: Sequence[Mapping[str, Json]]) -> Any:
    import altair as alt

    return alt.Scale(domain=[0, 1.08 * max([*(row["time"] for row in rows), 1e-3])], nice=False)


def _losses(rows: Sequence[Mapping[str, Json]], result: Result) -> Any:
    import altair as alt

    top = max([*(row["top"] for row in rows), 1.3 * result.max_drop, 0.1 * result.point])
    low = min([*(row["loss"] for row in rows), 0.0])
    space = 0.08 * (top - low)
    return alt.Scale(domain=[low - space, top + space], nice=False)


def expected_and_measured(
    rows: Sequence[tuple[str, float, float]], unit: str
) -> dict[str, Json] | None:
    """What was expected against what was measured, and the line on which both are equal; None if
    there are too few.

    Args:
        rows: of each candidate its title, what was expected, and what was measured.
        unit: of both.
    """
    import altair as alt

    if len(rows) < ENOUGH:
        return None
    ends = [value for _, *both in rows for value in both]
    low, high = min(*ends, 0.0), max(*ends, 0.0)
    room = 0.08 * (high - low)
    low, high = low - room * (low < 0), high + room
    scale = alt.Scale(domain=[low, high], nice=False)
    x = alt.X("expected:Q", title=f"expected, {unit}", scale=scale)
    y = alt.Y("measured:Q", title=f"measured, {unit}", scale=scale)
    values = [
        {"title": title, "expected": expected, "measured": measured}
        for title, expected, measured in rows
    ]
    equal = [{"expected": end, "measured": end} for end in (low, high)]
    line = alt.Chart(alt.InlineData(values=equal)).mark_line(color=GREY, strokeDash=[5, 4])
    dots = alt.Chart(alt.InlineData(values=values)).mark_point(
        filled=True, size=80, color="#3b82f6"
    )
    told = [
        alt.Tooltip("title:N", title="candidate"),
        alt.Tooltip("expected:Q", format=".3~f"),
        alt.Tooltip("measured:Q", format=".3~f"),
    ]
    both = alt.layer(line.encode(x=x, y=y), dots.encode(x=x, y=y, tooltip=told))
    return _specification(both.properties(width="container", height=SMALL))


def _specification(chart: Any) -> dict[str, Json]:
    """A chart as plain data that names no address."""
    data: dict[str, Json] = chart.to_dict()
    del data["$schema"]
    data.pop("config", None)  # which the page sets, by its own colours
    return data
