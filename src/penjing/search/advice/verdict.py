"""Verdict: what the figures of a file say of the method that made it, in a word and a sentence."""

from __future__ import annotations

from penjing.search.advice.outlook import CYCLES, MACS, TIME, Figures
from penjing.search.predict.recovery import left_after
from penjing.targets import in_words

PAYS, MAY_PAY, SMALLER, NO, CANT = "pays", "may pay", "smaller", "doesn't pay", "can't work"
TOO_MUCH, UNCLEAR, NOT_TRIED, FIRST = "loses too much", "unclear", "not tried", "reference"
FASTER = 0.97
"""A file pays where it takes at most this share of the time of the one that it is compared with."""
LIGHTER = 0.9
"""And it is smaller where it has at most this share of the bytes."""
MOST_LOST = 2.0
"""So many points or hundredths may a file lose which nothing trains afterwards."""
WRECKED = 50.0
"""If more than so many are lost without training, little of what was learnt is left."""
EPOCHS = 8.0
"""The training that is recommended behind a cut."""
UNITS = {TIME: "of the time of", CYCLES: "of the cycles of", MACS: "of the work of"}


def uncut(mine: Figures, before: Figures | None, speed: str, rival: str) -> tuple[str, str]:
    """The verdict on a network that is only held in another way.

    Args:
        mine: of its file.
        before: of the best file so far; None if this is the first.
        speed: what stands for speed.
        rival: what the best file so far is called.
    """
    if before is None:
        verdict = TOO_MUCH if mine.lost > MOST_LOST else FIRST
        shares = {TIME: "times", CYCLES: "cycles", MACS: "MACs"}[speed]
        return verdict, f"all {shares} are shares of this file's; it {_lost(mine.lost, mine.unit)}"
    verdict = TOO_MUCH if mine.lost > MOST_LOST else _verdict(mine, before, speed)
    return verdict, _said(mine, before, speed, rival)


def cut(
    mine: Figures, base: Figures, speed: str, rival: str, trains: bool = True
) -> tuple[str, str]:
    """The verdict on a network from which something was taken; see `uncut`.

    Args:
        trains: whether such a network is trained afterwards.
    """
    verdict, said = _verdict(mine, base, speed), _said(mine, base, speed, rival)
    if not trains and mine.lost - base.lost > MOST_LOST:
        return TOO_MUCH, said
    if mine.lost - base.lost > WRECKED:
        said += "; so little is left of what it has learnt that training begins nearly anew"
    return verdict, said


def expected(mine: Figures, base: Figures) -> float:
    """What is expected to be lost after `EPOCHS` of distillation, from what is lost without any; no
    measurement, see `penjing.search.predict.recovery.Recovery`."""
    return max(0.0, base.lost) + max(0.0, mine.lost - base.lost) * left_after(EPOCHS)


def _verdict(mine: Figures, rival: Figures, speed: str) -> str:
    if mine.disturbed or rival.disturbed:
        return UNCLEAR
    if mine.high < FASTER * rival.low:
        return MAY_PAY if speed == MACS else PAYS
    if mine.file_bytes < LIGHTER * rival.file_bytes:
        return SMALLER
    return NO


def _said(mine: Figures, rival: Figures, speed: str, title: str) -> str:
    share = mine.speed / rival.speed
    spread = ""
    if speed == TIME:
        spread = f" ({mine.low / rival.high:.2f} - {mine.high / rival.low:.2f})"
    unclear = ", which other programs disturbed" if mine.disturbed or rival.disturbed else ""
    return (
        f"{share:.2f}{spread} {UNITS[speed]} {title}{unclear}, {in_words(mine.file_bytes)} instead "
        f"of {in_words(rival.file_bytes)}, {_lost(mine.lost - rival.lost, mine.unit)} untrained"
    )


def _lost(value: float, unit: str) -> str:
    """What is lost, in words.

    >>> _lost(1.26, "points"), _lost(0.0, "%"), _lost(-0.5, "%")
    ('loses 1.3 points', 'loses nothing', 'gains 0.5 %')
    """
    if value <= -0.05:
        return f"gains {-value:.1f} {unit}"
    return f"loses {value:.1f} {unit}" if value >= 0.05 else "loses nothing"
