"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from penjing.contract import Latency
from penjing.printable import in_a_line
from penjing.runtimes.registry import Entry
from penjing.targets import REACH, Target, in_words
from penjing.tools.profile import LayerProfile, NodeProfile
from penjing.trials.evaluation.saturation import processor_of, warning
from penjing.trials.result import Result
from penjing.trials.trial import Status, Trial


def headings(result: Result) -> tuple[str, ...]:
    """Of the candidates' table; the score goes by the metric's own name."""
    metric = result.baseline.measurement.metric
    return ("candidate", metric, "drop", "bound", "ms", "ratio", "kB", "verdict")


def rows(result: Result) -> list[tuple[str, ...]]:
    """The cells of the candidates' table, the baseline first, then by latency."""

    def order(trial: Trial) -> float:
        return trial.measurement.latency.ratio if trial.measurement.latency else float("inf")

    return [_row(trial) for trial in (result.baseline, *sorted(result.trials, key=order))]


def _row(trial: Trial) -> tuple[str, ...]:
    m = trial.measurement
    times, drop = m.latency, m.drop
    return (
        trial.title,
        "" if m.score is None else f"{100 * m.score:.2f}",
        "" if drop is None or trial.status == Status.BASELINE else f"{drop.drop:+.2f}",
        "" if drop is None or trial.status == Status.BASELINE else f"{drop.bound:.2f}",
        "" if times is None else f"{times.latency_ms:.3f}",
        "" if times is None else f"{times.ratio:.3f}",
        "" if m.file_bytes is None else f"{m.file_bytes / 1000:.1f}",
        trial.status + (", disturbed" if times is not None and times.disturbed else ""),
    )


def reasons(result: Result) -> list[str]:
    """One line for each candidate: what it gained, or why it failed; and one for each whose file
    other processors decide otherwise."""
    lines = [f"{trial.title}: {trial.reason}" for trial in result.trials if trial.reason]
    if result.judged_on:
        here = processor_of(result.judged_on)
        told = (
            warning(trial.title, trial.measurement.saturates, here) for trial in result.everything
        )
        lines += [line for line in told if line]
    return lines


def candidates_table(result: Result) -> Table:
    """Every candidate; the chosen one in bold."""
    table = Table(title=_name(f"{result.task} on {result.machine}"), title_justify="left")
    for heading in headings(result):
        left = heading in ("candidate", "verdict")
        table.add_column(escape(heading), justify="left" if left else "right", no_wrap=True)
    for row in rows(result):
        table.add_row(*row, style="bold green" if row[0] == result.chosen else None)
    return table


def profile_table(layers: Sequence[LayerProfile], whole: float) -> Table:
    """Layers, the slowest first, and totals."""
    table = Table(title=f"{whole:.3f} ms in all, batch 1, one thread", title_justify="left")
    for heading in ("layer", "operator", "params", "MACs", "activation bytes", "ms", "share"):
        table.add_column(heading, justify="left" if heading in ("layer", "operator") else "right")
    for profile in layers:
        ms = "fused" if profile.latency_ms is None else f"{profile.latency_ms:.4f}"
        share = "" if profile.latency_ms is None else f"{profile.latency_ms / whole:.1%}"
        numbers = (f"{n:,}" for n in (profile.params, profile.macs, profile.activation_bytes))
        table.add_row(_name(profile.layer), _name(profile.operator), *numbers, ms, share)
    sums = (
        f"{sum(getattr(profile, name) for profile in layers):,}"
        for name in ("params", "macs", "activation_bytes")
    )
    table.add_section()
    table.add_row("total", "", *sums, f"{whole:.4f}", "100.0%")
    return table


def nodes_table(nodes: Sequence[NodeProfile], whole: float) -> Table:
    """Nodes of a file, the slowest first, and totals."""
    table = Table(title=f"{whole:.3f} ms in all, batch 1, one thread", title_justify="left")
    for heading in ("node", "operator", "ms", "share", "weight bytes"):
        table.add_column(heading, justify="left" if heading in ("node", "operator") else "right")
    for profile in nodes:
        ms = "fused" if profile.latency_ms is None else f"{profile.latency_ms:.4f}"
        share = "" if profile.share is None else f"{profile.share:.1%}"
        table.add_row(
            _name(profile.node), _name(profile.operator), ms, share, f"{profile.weight_bytes:,}"
        )
    table.add_section()
    weights = sum(profile.weight_bytes for profile in nodes)
    table.add_row("total", "", f"{whole:.4f}", "100.0%", f"{weights:,}")
    return table


def bench_table(
    times: Mapping[str, Latency],
    where: str = "this machine",
    peaks: Mapping[str, int | None] | None = None,
) -> Table:
    """Files against the first one; with the peaks of memory, where those were measured."""
    title = f"batch 1, one thread, interleaved, on {escape(where)}"
    table = Table(title=title, title_justify="left")
    headings = ["file", "latency ms", "p90 ms", "ratio", "interval (99 %)", "verdict"]
    for heading in headings + (["peak memory"] if peaks else []):
        table.add_column(heading, justify="left" if heading in ("file", "verdict") else "right")
    for number, (name, latency) in enumerate(times.items()):
        verdict = latency.verdict + (" (disturbed)" if latency.disturbed else "")
        peak = (peaks or {}).get(name)
        table.add_row(
            _name(name),
            f"{latency.latency_ms:.4f}",
            f"{latency.p90_ms:.4f}",
            f"{latency.ratio:.3f}",
            f"{latency.ratio_low:.3f} - {latency.ratio_high:.3f}" if number else "",
            verdict if number else "the measure",
            *(["unknown" if peak is None else in_words(peak)] if peaks else []),
        )
    return table


def targets_table(targets: Mapping[str, Target]) -> Table:
    """The devices that penjing knows."""
    table = Table()
    headings = (
        "target", "what", "ISA", "cores", "memory", "flash", "NPU", "precisions", "runtimes",
        "multiple", "how to reach it",
    )  # fmt: skip
    for heading in headings:
        table.add_column(heading)
    for target in targets.values():
        memory = "unknown" if target.memory_bytes is None else in_words(target.memory_bytes)
        flash = "" if target.flash_bytes is None else in_words(target.flash_bytes)
        table.add_row(
            target.name, target.description, target.isa, str(target.cores), memory, flash,
            target.npu or "", ", ".join(target.precisions), ", ".join(target.runtimes),
            str(target.channel_multiple), REACH[target.reach],
        )  # fmt: skip
    return table


def runtimes_table(entries: Mapping[str, Entry]) -> Table:
    """The runtimes that penjing lowers to."""
    table = Table()
    table.add_column("runtime", no_wrap=True)
    for heading in ("what", "file", "runs here", "to install"):
        table.add_column(heading, overflow="fold")
    for name, entry in entries.items():
        absent = entry.absent
        here, install = ("no", entry.install) if absent else (entry.version, "")
        table.add_row(name, entry.about, entry.ending, here, escape(install))
    return table


def _name(text: str) -> str:
    """What others named, in a cell: on one line, and no markup."""
    return escape(in_a_line(text))
