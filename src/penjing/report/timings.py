"""Timings: the tables of `profile` and `bench`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penjing.contract import Latency
from penjing.layout import WIDTH, Column, Laid, Line, table, wrapped
from penjing.printable import in_a_line
from penjing.report.answer import milliseconds
from penjing.report.table import UNSURE, kilobytes
from penjing.targets import in_words
from penjing.tools.profile import LayerProfile, NodeProfile
from penjing.trials.judgement.wording import UNRELIABLE, ratio

FUSED = "fused"
FUSED_MEANS = (
    f'"{FUSED}": the runtime computes it together with a neighbour, whose time includes it.'
)


def profile_lines(layers: Sequence[LayerProfile], whole: float, width: int = WIDTH) -> list[Line]:
    """Layers, the slowest first, and the sums."""
    columns = [
        Column("layer", fit="cut"), Column("operator", fit="cut"), Column("weights", right=True),
        Column("MACs", right=True), Column("output\nkB", right=True),
        Column("time\nms", right=True), Column("share\n%", right=True),
    ]  # fmt: skip
    rows = [
        [
            in_a_line(profile.layer), in_a_line(profile.operator), thousands(profile.params),
            thousands(profile.macs), kilobytes(profile.activation_bytes),
            *_time(profile.latency_ms, whole),
        ]
        for profile in layers
    ]  # fmt: skip
    names = ("params", "macs", "activation_bytes")
    params, macs, outputs = (sum(getattr(row, name) for row in layers) for name in names)
    total = ["all", "", thousands(params), thousands(macs), kilobytes(outputs)]
    laid = table(columns, [*rows, [*total, *_time(whole, whole)]], width)
    return _lines(_title(whole), laid, any(row.latency_ms is None for row in layers), width)


def nodes_lines(nodes: Sequence[NodeProfile], whole: float, width: int = WIDTH) -> list[Line]:
    """Nodes of a file, the slowest first, and the sums."""
    columns = [
        Column("node", fit="cut"), Column("operator", fit="cut"),
        Column("weights\nkB", right=True), Column("time\nms", right=True),
        Column("share\n%", right=True),
    ]  # fmt: skip
    rows = [
        [
            in_a_line(profile.node), in_a_line(profile.operator), kilobytes(profile.weight_bytes),
            *_time(profile.latency_ms, whole),
        ]
        for profile in nodes
    ]  # fmt: skip
    weights = kilobytes(sum(profile.weight_bytes for profile in nodes))
    laid = table(columns, [*rows, ["all", "", weights, *_time(whole, whole)]], width)
    return _lines(_title(whole), laid, any(row.latency_ms is None for row in nodes), width)


def _title(whole: float) -> str:
    return f"{milliseconds(whole)} ms for one sample on one thread, in ONNX Runtime"


def _time(ms: float | None, whole: float) -> tuple[str, str]:
    return (FUSED, "") if ms is None else (f"{ms:.4f}", f"{100 * ms / whole:.1f}")


def _lines(title: str, laid: Laid, has_fused: bool, width: int) -> list[Line]:
    *rows, last = laid.rows
    lines: list[Line] = [*wrapped(title, width), "", *((line, "bold") for line in laid.head)]
    lines += [line for row in rows for line in row] + [(line, "bold") for line in last]
    return lines + (wrapped(FUSED_MEANS, width) if has_fused else [])


def thousands(number: int) -> str:
    """A count with three digits and k, M or G.

    >>> thousands(64), thousands(131_200), thousands(4_718_592)
    ('64', '131 k', '4.72 M')
    """
    for unit, name in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= unit:
            return f"{number / unit:#.3g}".rstrip(".") + f" {name}"
    return str(number)


def bench_lines(
    times: Mapping[str, Latency],
    where: str = "this machine",
    peaks: Mapping[str, int | None] | None = None,
    width: int = WIDTH,
) -> list[Line]:
    """Files beside the first one; with the peaks of memory, where those were measured."""
    columns = [
        Column("file", fit="cut"), Column("time\nms", right=True), Column("p90\nms", right=True),
        Column("time vs.\nthe first", right=True), Column("99 % interval", right=True),
        Column("result"), Column("peak\nmemory", right=True),
    ]  # fmt: skip
    rows = []
    for number, (name, latency) in enumerate(times.items()):
        peak = (peaks or {}).get(name)
        interval = f"{ratio(latency.ratio_low)} to {ratio(latency.ratio_high)}"
        rows.append([
            in_a_line(name), f"{latency.latency_ms:.4f}", f"{latency.p90_ms:.4f}",
            ratio(latency.ratio) + (UNSURE if latency.disturbed and number else ""),
            interval if number else "", latency.verdict if number else "the first",
            ("unknown" if peak is None else in_words(peak)) if peaks else "",
        ])  # fmt: skip
    laid = table(columns, rows, width)
    title = f"One sample on one thread, the files in turn, on {in_a_line(where)}"
    lines: list[Line] = [*wrapped(title, width), "", *((line, "bold") for line in laid.head)]
    lines += laid.body
    lines += wrapped("p90: nine of ten runs take no longer than that.", width)
    if any(latency.disturbed for latency in times.values()):
        lines += wrapped(f"{UNSURE} The {UNRELIABLE}. Repeat the measurement.", width, "", "  ")
    return lines
