"""Layers as a page shows them: what was cut, and where the time went, before and after."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from penjing.layout import counted
from penjing.printable import in_a_line
from penjing.report.answer import milliseconds
from penjing.report.timings import thousands
from penjing.trials.layers import Layer, LayerFigures, Layers

MANY = 14
"""More rows than this are folded away."""


@dataclass(frozen=True)
class LayerRow:
    """A layer's row.

    Attributes:
        times: before and after.
        sizes: outputs, parameters and MACs, each before and after.
        bars: the times, each as a share of the longest one, in percent.
        mark: what to say of it: `"gone"`, `"narrower"`, `"new"`, or nothing.
    """

    name: str
    operator: str
    times: tuple[str, ...]
    sizes: tuple[str, ...]
    bars: tuple[float, float]
    mark: str


@dataclass(frozen=True)
class ByLayer:
    """The layers of a result, as tables and sentences show them."""

    layers: Layers

    @property
    def timed(self) -> tuple[bool, bool]:
        """Whether the layers were timed: before, and after."""
        rows = self.layers.rows
        return any(_time(row.before) for row in rows), any(_time(row.after) for row in rows)

    @property
    def has_times(self) -> bool:
        """Whether the layers of any file were timed."""
        return any(self.timed)

    @property
    def is_long(self) -> bool:
        """Whether the table is folded away."""
        return len(self.layers.rows) > MANY

    @property
    def notes(self) -> list[str]:
        """What to know about the figures."""
        return [in_a_line(note) for note in self.layers.notes]

    @property
    def summary(self) -> str:
        """What was cut, in sentences."""
        weighted = [row for row in self.layers.rows if row.operator and row.before is not None]
        if not weighted:
            return ""
        gone = sum(row.is_gone for row in weighted)
        narrower = sum(row.is_narrower for row in weighted)
        said = [
            f"{counted(len(weighted), 'layer')} with weights: {gone} gone, {narrower} narrower, "
            f"{len(weighted) - gone - narrower} as wide as before."
        ]
        for what, name in (("macs", "Their multiply-accumulates"), ("params", "Their parameters")):
            before, after = (sum(figures) for figures in self._both(what))
            if before:
                share = f" ({100 * after / before:.0f} %)" if after != before else ""
                said.append(f"{name}: {thousands(before)} before, {thousands(after)} now{share}.")
        return " ".join(said)

    def _both(self, what: str) -> tuple[list[int], list[int]]:
        sides = ([row.before for row in self.layers.rows], [row.after for row in self.layers.rows])
        before, after = ([getattr(side, what) for side in each if side] for each in sides)
        return before, after

    def rows(self) -> Iterator[LayerRow]:
        """All layers, in the order of the original network."""
        longest = max(
            (_time(side) for row in self.layers.rows for side in (row.before, row.after)),
            default=0.0,
        )
        for row in self.layers.rows:
            before, after = (
                100 * _time(side) / longest if longest else 0.0 for side in (row.before, row.after)
            )
            yield LayerRow(
                in_a_line(row.name),
                in_a_line(row.operator) or "no weights",
                tuple(_times(row, self.timed)),
                tuple(_sizes(row)),
                (round(before, 1), round(after, 1)),
                _mark(row),
            )


def _time(side: LayerFigures | None) -> float:
    return 0.0 if side is None or side.latency_ms is None else side.latency_ms


def _sizes(row: Layer) -> Iterator[str]:
    """Outputs, parameters and MACs, each before and after; empty for what has no weights."""
    for side in (row.before, row.after):
        yield str(side.channels) if side is not None and side.channels is not None else ""
    for what in ("params", "macs"):
        for side in (row.before, row.after):
            yield thousands(getattr(side, what)) if side is not None and row.operator else ""


def _times(row: Layer, timed: tuple[bool, bool]) -> Iterator[str]:
    """The times before and after; empty where there is no such layer, or nobody tells."""
    for side, is_timed in zip((row.before, row.after), timed, strict=True):
        if side is None or not is_timed:
            yield ""
        else:
            yield "with others" if side.latency_ms is None else milliseconds(side.latency_ms)


def _mark(row: Layer) -> str:
    if row.is_gone:
        return "gone"
    if row.before is None and row.operator:
        return "new"
    return "narrower" if row.is_narrower else ""
