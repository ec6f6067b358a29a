"""The plot of a result: loss against time. Names never overlap; what has none has a number."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from penjing.layout import told_apart
from penjing.printable import in_a_line
from penjing.report.answer import time_axis
from penjing.report.table import in_order, that_matter
from penjing.trials.judgement.wording import digits, lost_of
from penjing.trials.result import Result
from penjing.trials.trial import Trial

SIZE, DPI = (8.0, 5.2), 120
FAR = 4.0  # times the budget; what lost more is shown at the upper edge
NAME = 40  # characters of a title
GREEN, BLUE, GREY, RED = "tab:green", "tab:blue", "0.55", "tab:red"


def plot(result: Result) -> bytes:
    """A PNG: loss on validation against time, the budget as a line, the answer marked.

    The answer and what no other candidate beats have their titles; the others have numbers, which
    the list under the plot explains.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [trial for trial in in_order(result) if trial.latency and trial.drop]
    names = told_apart([in_a_line(result.named(trial)) for trial in shown], NAME)
    matter = {trial.key for trial in that_matter(result)}
    numbers = {
        trial.key: number
        for number, trial in enumerate((t for t in shown if t.key not in matter), start=1)
    }
    listed = [
        f"{numbers[trial.key]}  {name}{_gone(trial, result)}"
        for trial, name in zip(shown, names, strict=True)
        if trial.key in numbers
    ]
    figure = Figure(figsize=(SIZE[0], SIZE[1] + _list_inches(listed)), dpi=DPI)
    canvas: Any = FigureCanvasAgg(figure)
    axes = figure.add_axes(_place(figure, listed))
    budget = _frame(axes, result, shown)
    spots = [_spot(axes, trial, result, trial.key in matter) for trial in shown]
    canvas.draw()
    labels = Labels(axes, [axes.transData.transform(spot) for spot in spots])
    labels.taken.append(budget.get_window_extent().extents)
    in_turn = sorted(
        zip(shown, names, spots, strict=True),
        key=lambda item: (item[0].key in numbers, item[0].key != result.answer.key),
    )
    for trial, name, spot in in_turn:
        text = str(numbers[trial.key]) if trial.key in numbers else f"{name}{_gone(trial, result)}"
        labels.add(text, spot, is_bold=trial.key == result.answer.key)
    _list(figure, listed)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def highest(result: Result) -> float:
    """The loss beyond which a point is drawn at the upper edge."""
    return FAR * max(result.max_drop, 0.25 * result.point)


def _gone(trial: Trial, result: Result) -> str:
    """What a point at the upper edge really lost."""
    assert trial.drop is not None
    lost = trial.drop.drop
    return f" (loses {digits(lost, result.unit)})" if lost > highest(result) else ""


def _frame(axes: Any, result: Result, shown: Sequence[Trial]) -> Any:
    """Set the axes up; returns the text at the budget's line."""
    losses = [trial.drop.drop for trial in shown if trial.drop is not None]
    bounds = [trial.drop.bound for trial in shown if trial.drop is not None]
    top = min(max([*bounds, 1.3 * result.max_drop, 0.1 * result.point]), highest(result))
    low = min([*losses, 0.0])
    space = 0.12 * (top - low)
    axes.set_ylim(low - space, top + 1.5 * space)
    times = [trial.latency.latency_ms for trial in shown if trial.latency is not None]
    axes.set_xlim(0, 1.12 * max([*times, 1e-3]))
    axes.axhline(result.max_drop, color=RED, linestyle="--", linewidth=1)
    budget = axes.text(
        0.995, result.max_drop, f"budget {result.max_drop:g}", color=RED, fontsize=9,
        ha="right", va="bottom", transform=axes.get_yaxis_transform(),
    )  # fmt: skip
    metric = in_a_line(result.baseline.measurement.metric)
    axes.set_xlabel(time_axis(result))
    axes.set_ylabel(f"{lost_of(metric, result.unit)} on validation, with the bound", fontsize=9)
    axes.grid(alpha=0.3)
    (answer,) = told_apart([in_a_line(result.named(result.answer))], NAME)
    title = f"{in_a_line(result.task)} on {in_a_line(result.target)}: {answer} is the answer"
    axes.set_title(title, fontsize=11)
    return budget


def _spot(axes: Any, trial: Trial, result: Result, matters: bool) -> tuple[float, float]:
    """Draw a candidate; returns where it is."""
    assert trial.latency is not None
    assert trial.drop is not None
    x, y = trial.latency.latency_ms, min(trial.drop.drop, highest(result))
    is_answer, is_gone = trial.key == result.answer.key, bool(_gone(trial, result))
    if matters and not is_gone and trial.key != result.baseline.key:
        bars = np.array([[0.0], [max(trial.drop.bound - y, 0.0)]])
        axes.errorbar(x, y, yerr=bars, color="0.7", capsize=3, zorder=1)
    colour = GREEN if is_answer else BLUE if matters else GREY
    marker = "^" if is_gone else "o"
    axes.scatter(x, y, s=90 if is_answer else 45, color=colour, marker=marker, zorder=2)
    return x, y


Box = tuple[float, float, float, float]
"""Left, bottom, right and top, in pixels."""
GAPS = (7, 13, 20, 28, 38, 50, 64, 80, 100, 125, 150)
"""Distances of a label from its point, in pixels, the nearest first."""
SIDES = tuple(product((1, 0, -1), (1, -1, 0)))


@dataclass
class Labels:
    """Texts beside points, each where it covers no other text and no point.

    Attributes:
        points: in pixels, of everything drawn.
        taken: the boxes of the texts so far.
    """

    axes: Any
    points: Sequence[Any]
    taken: list[Box] = field(default_factory=list)

    def add(self, text: str, spot: tuple[float, float], is_bold: bool = False) -> None:
        """Write a text beside the point, with a line to it if it isn't near."""
        weight = "bold" if is_bold else "normal"
        label = self.axes.annotate(
            text, spot, (0, 0), textcoords="offset pixels", fontsize=8.5, fontweight=weight,
            annotation_clip=False, zorder=3,
        )  # fmt: skip
        extent = label.get_window_extent()
        x, y = self.axes.transData.transform(spot)
        places = list(self._places(x, y, extent.width, extent.height))
        gap, box = next((place for place in places if self._is_free(place[1])), places[0])
        self.taken.append(box)
        label.set_position((box[0] - x, box[1] - y))
        if gap > GAPS[1]:
            ends = self.axes.transData.inverted().transform(
                [(x, y), (min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3]))]
            )
            self.axes.plot(*zip(*ends, strict=True), color="0.75", linewidth=0.7, zorder=1)

    def _places(self, x: float, y: float, width: float, height: float) -> Iterator[tuple[int, Box]]:
        """Where the text may stand, the best place first."""
        for gap, (right, up) in product(GAPS, SIDES):
            if not right and not up:
                continue
            left, bottom = _beside(x, right, gap, width), _beside(y, up, gap, height)
            yield gap, (left, bottom, left + width, bottom + height)

    def _is_free(self, box: Box) -> bool:
        frame = self.axes.get_window_extent()
        inside = frame.x0 < box[0] and box[2] < frame.x1 and frame.y0 < box[1] and box[3] < frame.y1
        covers = any(
            box[0] - 5 < x < box[2] + 5 and box[1] - 5 < y < box[3] + 5 for x, y in self.points
        )
        return inside and not covers and not any(overlap(box, other, 4) for other in self.taken)


def _beside(at: float, side: int, gap: int, length: float) -> float:
    """Where something begins that stands on a side of `at`: 1 behind, -1 before, 0 centred."""
    return at + side * gap - length * (1 - side) / 2


def overlap(box: Box, other: Box, space: float = 0.0) -> bool:
    """Whether two boxes have a point in common, or are nearer than `space`."""
    beside = box[2] + space < other[0] or other[2] + space < box[0]
    return not (beside or box[3] + space < other[1] or other[3] + space < box[1])


# ---- the list of what has only a number

ROW = 0.17  # inches
BELOW = 0.62  # inches, of the axis' own labels


def _rows_of(listed: Sequence[str]) -> int:
    return -(-len(listed) // 2)


def _list_inches(listed: Sequence[str]) -> float:
    return ROW * _rows_of(listed) + (0.1 if listed else 0.0)


def _place(figure: Any, listed: Sequence[str]) -> tuple[float, float, float, float]:
    """Of the axes, as shares of the figure: left, bottom, width and height."""
    height = figure.get_size_inches()[1]
    bottom = (BELOW + _list_inches(listed)) / height
    return 0.085, bottom, 0.895, 1 - bottom - 0.38 / height


def _list(figure: Any, listed: Sequence[str]) -> None:
    """The numbers with their titles, in two columns at the bottom."""
    height = figure.get_size_inches()[1]
    count = _rows_of(listed)
    for at, text in enumerate(listed):
        column, row = divmod(at, count)
        y = (_list_inches(listed) - ROW * row - 0.08) / height
        figure.text(0.085 + 0.45 * column, y, text, fontsize=8, va="center")
