"""Lists: the devices and the runtimes that penjing knows."""

from __future__ import annotations

from collections.abc import Mapping

from penjing.layout import Column, Line, table, wrapped
from penjing.printable import in_a_line
from penjing.runtimes.registry import Entry
from penjing.targets import REACH, Target, in_words


def targets_lines(targets: Mapping[str, Target], width: int) -> list[Line]:
    """The devices, by how penjing reaches them."""
    lines: list[Line] = []
    for reach, how in REACH.items():
        rows = [_row(target) for target in targets.values() if target.reach == reach]
        if rows:
            columns = [
                Column("target"), Column("what it is", fit="wrap"), Column("memory", right=True),
                Column("flash", right=True), Column("NPU"),
            ]  # fmt: skip
            lines += [(line, "bold") for line in wrapped(f"{how[0].upper()}{how[1:]}:", width)]
            laid = table(columns, rows, width)
            lines += [*((line, "italic") for line in laid.head), *laid.body, ""]
    return [*lines, *wrapped("To see all that is known of one, and the sources:", width),
            "  penjing targets NAME"]  # fmt: skip


def _row(target: Target) -> list[str]:
    memory = "unknown" if target.memory_bytes is None else in_words(target.memory_bytes)
    flash = "" if target.flash_bytes is None else in_words(target.flash_bytes)
    return [target.name, in_a_line(target.description), memory, flash, target.npu or ""]


def target_lines(target: Target, width: int) -> list[Line]:
    """All that is known of one device, each figure with its source."""
    figures = {
        "processor": ("isa", target.isa),
        "cores": ("cores", str(target.cores)),
        "memory": ("memory_bytes", _bytes(target.memory_bytes)),
        "flash": ("flash_bytes", _bytes(target.flash_bytes) if target.flash_bytes else ""),
        "NPU": ("npu", target.npu or ""),
        "precisions": ("precisions", ", ".join(target.precisions)),
        "runtimes": ("runtimes", ", ".join(target.runtimes)),
        "channels": ("channel_multiple", f"best in multiples of {target.channel_multiple}"),
    }
    lines: list[Line] = [(in_a_line(target.name), "bold")]
    lines += wrapped(in_a_line(target.description), width, "  ")
    lines += wrapped(f"{REACH[target.reach]}", width, "  ")
    for name, (field, figure) in figures.items():
        if figure:
            lines += wrapped(in_a_line(figure), width, f"  {name}".ljust(16))
            if source := target.sources.get(field):
                lines += wrapped(f"({in_a_line(source)})", width, " " * 18)
    return lines


def _bytes(size: int | None) -> str:
    return "unknown" if size is None else f"{in_words(size)} ({size:,} bytes)"


def runtimes_lines(entries: Mapping[str, Entry], width: int) -> list[Line]:
    """The runtimes; and under them, how to have those that can't run here."""
    absent = {name: why for name, entry in entries.items() if (why := entry.absent)}
    rows = [
        [name, entry.ending, "no" if name in absent else str(entry.version), entry.about]
        for name, entry in entries.items()
    ]
    columns = [
        Column("runtime"), Column("file"), Column("here"), Column("what it is", fit="wrap"),
    ]  # fmt: skip
    laid = table(columns, rows, width)
    lines: list[Line] = [*((line, "bold") for line in laid.head), *laid.body]
    if absent:
        lines += ["", ("To have those that aren't here:", "bold")]
    for name, why in absent.items():
        entry = entries[name]
        command = entry.command if entry.missing else ""
        also = entry.also if command else entry.also or entry.command
        lines += wrapped(f"{name}: {why}{f'; it needs {also}' if also else ''}", width, "  ")
        lines += [f"    {command}"] if command else []
    return lines
