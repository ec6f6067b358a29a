"""The advice on a terminal: what to do, then what each method gave, with its reasons."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from penjing.contract import POINTS
from penjing.layout import Column, Line, counted, table, wrapped
from penjing.printable import in_a_line
from penjing.search.advice.outlook import CYCLES, MACS, TIME, Advice, Outlook
from penjing.targets import in_words
from penjing.trials.judgement.wording import duration

HEADS = {TIME: "time", CYCLES: "cycles\n(estimate)", MACS: "work\n(estimate)"}


def advice_lines(
    advice: Advice, command: str, width: int, spelled: Callable[[str], str] = str
) -> Iterator[Line]:
    """All lines, what to do first.

    Args:
        command: what is recommended, as a command line.
        width: columns of the terminal.
        spelled: how a text is written here that names options as Python does.
    """
    yield from _prose(_first(advice), width, "bold")
    yield f"  {in_a_line(command)}", ""
    yield "", ""
    yield from table(_columns(advice), [_cells(o) for o in advice.outlooks], width).lines
    yield "", ""
    yield from _prose(_measured(advice), width)
    yield "", ""
    yield "What each gave:", "bold"
    for outlook in advice.outlooks:
        yield from wrapped(in_a_line(spelled(f"{outlook.title}: {outlook.why}")), width, "- ")
    if advice.notes:
        yield "", ""
        yield "Notes:", "bold"
        for note in advice.notes:
            yield from wrapped(in_a_line(spelled(note)), width, "- ")


def _first(advice: Advice) -> str:
    """What to do next, in a sentence."""
    said = f"For {advice.task} on {advice.target}: {advice.recommended.why}"
    return f"{said}. Next:"


def _columns(advice: Advice) -> list[Column]:
    return [
        Column("method", fit="wrap"),
        Column("verdict"),
        Column(HEADS[advice.speed], right=True),
        Column("file", right=True),
        Column("lost\nuntrained", right=True),
        Column("lost after\ntraining, about", right=True),
    ]


def _cells(outlook: Outlook) -> list[str]:
    figures, after = outlook.figures, outlook.expected
    if figures is None:
        return [outlook.title, outlook.verdict, "", "", "", ""]
    return [
        outlook.title,
        outlook.verdict,
        f"{figures.speed:.2f}",
        in_words(figures.file_bytes),
        f"{figures.lost:z.1f}",
        "" if after is None else f"{after:.1f}",
    ]


def _measured(advice: Advice) -> str:
    """Where the figures are from."""
    speed = {
        TIME: f"Times were measured on {advice.machine}, one sample at a time on one thread.",
        CYCLES: f"Cycles are {advice.machine}; nothing was measured on the device.",
        MACS: "This device isn't here and nobody estimates its time, so MACs are only counted, "
        "one of 8-bit integers as a quarter, one of float16 as a half.",
    }[advice.speed]
    said = (
        f"{speed} All are shares of {advice.first}'s. {_losses(advice)} lost are each file's, "
        f"beside the model, on {counted(advice.samples, 'held-out sample')}, untrained; "
        "what training will make up for is a formula's guess."
    )
    if advice.epoch_seconds is not None:
        said += f" An epoch of training takes {duration(advice.epoch_seconds)} here."
    return f"{said} All of this took {duration(advice.seconds)}."


def _losses(advice: Advice) -> str:
    units = {outlook.figures.unit for outlook in advice.outlooks if outlook.figures}
    if POINTS in units or not units:
        return f"Points of {advice.metric}"
    return f"Hundredths of the model's {advice.metric}"


def _prose(text: str, width: int, style: str = "") -> Iterator[Line]:
    for line in wrapped(in_a_line(text), width):
        yield line, style
