"""The plot of a result: drop against latency."""

from __future__ import annotations

import io

import numpy as np

from penjing.trials.result import Result


def plot(result: Result) -> bytes:
    """A PNG: drop on validation against latency, the budget as a line, the chosen one marked."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for trial in result.everything:
        m = trial.measurement
        if m.latency is None or m.drop is None:
            continue
        x, y = m.latency.latency_ms, m.drop.drop
        chosen = trial.key == result.answer.key
        bars = np.array([[0.0], [max(m.drop.bound - y, 0.0)]])
        axes.errorbar(x, y, yerr=bars, color="0.7", capsize=3, zorder=1)
        colour = "tab:green" if chosen else "tab:blue" if trial.pareto else "0.55"
        axes.scatter(x, y, s=90 if chosen else 45, color=colour, zorder=2)
        weight = "bold" if chosen else "normal"
        axes.annotate(
            trial.title, (x, y), (6, 5), textcoords="offset points", fontsize=9, fontweight=weight
        )
    axes.axhline(result.max_drop, color="tab:red", linestyle="--", linewidth=1)
    axes.text(
        0.99, result.max_drop, f"budget {result.max_drop:g}", color="tab:red", fontsize=9,
        ha="right", va="bottom", transform=axes.get_yaxis_transform(),
    )  # fmt: skip
    axes.set_xlabel("latency, ms (batch 1, one thread, measured on the file)")
    axes.set_ylabel("drop on validation, points, with upper bound")
    axes.set_xlim(left=0)
    axes.margins(x=0.15, y=0.15)
    axes.grid(alpha=0.3)
    axes.set_title(f"{result.task} on {result.target}: chosen is {result.chosen}")
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()
