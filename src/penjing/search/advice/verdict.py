"""Verdict: what the figures of a file say of the method that made it, in a word and a sentence."""

from __future__ import annotations

from penjing.search.advice.outlook import CYCLES, MACS, TIME, Figures
from penjing.search.predict.recovery import Recovery
from penjing.targets import in_words

PAYS, MAY_PAY, SMALLER, NO, CANT = "pays", "may pay", "smaller", "doesn't pay", "can't work"
NOT_TRIED, FIRST = "not tried", "reference"
FASTER = 0.97
"""A file pays where it takes at most this share of the time of the one that it is compared with."""
LIGHTER = 0.9
"""And it is smaller where it has at most this share of the bytes."""
WRECKED = 50.0
"""Points that are lost without training beyond which little of what was learnt is left."""
EPOCHS = 8.0
"""The training that is recommended behind a cut."""
UNITS = {TIME: "of the time of", CYCLES: "of the cycles of", MACS: "of the MACs of"}


def uncut(mine: Figures, before: Figures | None, speed: str, rival: str) -> tuple[str, str]:
    """The verdict on a network that is only held in another way.

    Args:
        mine: of its file.
        before: of the best file so far; None if this is the first.
        speed: what stands for speed.
        rival: what the best file so far is called.
    """
    if before is None:
        return FIRST, "all others are compared with this file"
    return _verdict(mine, before, speed), _said(mine, before, speed, rival)


def cut(mine: Figures, base: Figures, speed: str, rival: str) -> tuple[str, str]:
    """The verdict on a network from which something was taken; see `uncut`."""
    verdict, said = _verdict(mine, base, speed), _said(mine, base, speed, rival)
    if mine.lost - base.lost > WRECKED:
        said += "; so little is left of what it has learnt that training begins nearly anew"
    return verdict, said


def expected(mine: Figures, base: Figures) -> float:
    """Points that are expected to be lost after `EPOCHS` of training; a formula, not a measurement,
    see `penjing.search.predict.recovery.Recovery`."""
    recovery = Recovery(floor=max(0.0, base.lost))
    return recovery.predicted(mine.speed, max(0.0, mine.loss - base.loss), EPOCHS)


def _verdict(mine: Figures, rival: Figures, speed: str) -> str:
    if mine.high < FASTER * rival.speed:
        return MAY_PAY if speed == MACS else PAYS
    if mine.file_bytes < LIGHTER * rival.file_bytes:
        return SMALLER
    return NO


def _said(mine: Figures, rival: Figures, speed: str, title: str) -> str:
    share = mine.speed / rival.speed
    spread = ""
    if speed == TIME:
        spread = f" ({mine.low / rival.speed:.2f} - {mine.high / rival.speed:.2f})"
    lost = mine.lost - rival.lost
    change = f"loses {lost:.1f} points" if lost >= 0.05 else "loses nothing"
    if lost <= -0.05:
        change = f"gains {-lost:.1f} points"
    return (
        f"{share:.2f}{spread} {UNITS[speed]} {title}, {in_words(mine.file_bytes)} instead of "
        f"{in_words(rival.file_bytes)}, {change} untrained"
    )
