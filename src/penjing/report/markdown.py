"""The report: a Markdown page with the table and the plot."""

from __future__ import annotations

from pathlib import Path

from penjing.files import write_atomically
from penjing.report.plot import plot
from penjing.report.table import headings, reasons, rows
from penjing.trials.judgement.promise import TEST
from penjing.trials.result import Result


def write_report(result: Result, folder: Path) -> Path:
    """Write `report.md` and `plot.png` into the folder; returns the page's path."""
    write_atomically(folder / "plot.png", plot(result))
    write_atomically(folder / "report.md", page(result))
    return folder / "report.md"


def page(result: Result) -> str:
    """The report as text."""
    lines = [
        f"# {result.task} on {result.target}",
        "",
        f"Chosen: **{result.chosen}**, {result.reason}.",
        "",
        test_line(result),
        "",
        f"Machine: {result.machine}. Budget {result.max_drop:g} points at "
        f"{100 * result.confidence:g}% confidence, to be certified by the {result.certified_by} "
        f"data, goal {result.goal}, seed {result.seed}. "
        f"Versions: {', '.join(f'{k} {v}' for k, v in result.versions.items())}.",
        "",
        "| " + " | ".join(headings(result)) + " |",
        "|" + "---|" * len(headings(result)),
        *("| " + " | ".join(row) + " |" for row in rows(result)),
        "",
        f"The {result.baseline.measurement.metric} (times 100), drop and bound are on validation "
        "data, latency is batch 1 on one thread, inputs and outputs in the processor's memory, and "
        "each figure was measured on the exported file, in "
        f"{result.baseline.runtime} where nothing else is said. A ratio is to the original in the "
        "same windows.",
        "",
        "![drop against latency](plot.png)",
        "",
        *(f"- {line}" for line in (*reasons(result), *result.notes)),
        "",
        "What each method gave, points on validation data:",
        "",
        *(f"- {line}" for line in result.verdicts),
    ]
    return "\n".join(lines) + "\n"


def test_line(result: Result) -> str:
    """What the test data said, in one sentence."""
    if result.test_score is None or result.test_baseline is None:
        why = "the run did not finish"
        decides = result.certified_by == TEST
        return f"Nothing is certified: {why}." if decides else f"Test reports nothing: {why}."
    drop = result.test_drop
    if drop is None:
        said = "certifies nothing: " if result.test_looks else ""
        return f"Test: {said}the original, {100 * result.test_baseline:.2f}, is the answer."
    certifies = result.certified_by == TEST
    return (
        f"Test ({drop.samples} samples) {'certifies it' if certifies else 'only reports'}: "
        f"original {100 * result.test_baseline:.2f}, chosen {100 * result.test_score:.2f}; drop "
        f"{drop.drop:.2f} points, {100 * drop.confidence:.4g}% bound {drop.bound:.2f}"
        + (f" of {result.max_drop:g}." if certifies else "; the validation data certified it.")
    )
