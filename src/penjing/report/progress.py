"""How far a fit is, while it runs: stage, share, time left, and the best candidates so far."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.live import Live
from rich.text import Text

from penjing.layout import shortened, wrapped
from penjing.printable import in_a_line
from penjing.report.table import in_order
from penjing.report.terminal import Console
from penjing.trials.judgement.wording import digits, measured, share_in_words
from penjing.trials.result import Result
from penjing.trials.trial import Status, Trial

BAR = 24
OFTEN = 0.25  # seconds, after which the lines are drawn again
EARLY = 0.02  # a share, before which the time left can't be told
MOST = 4
"""So many candidates are shown of those that no other one beats."""
TRIED = (Status.KEPT, Status.OVER_BUDGET, Status.OVER_ON_TEST, Status.FAILED)
Show = Callable[[str, float, Result], None]


@contextmanager
def display(console: Console, clock: Callable[[], float] = time.monotonic) -> Iterator[Show]:
    """Shows the progress of a fit: a few lines that change on a terminal, plain lines in a pipe.

    Nothing is drawn between two calls, because a thread that draws would disturb what is timed.

    Yields:
        What the fit calls with its stage, the share done and the result so far.
    """
    if not console.is_terminal:
        yield Plain(console)
        return
    with Live(console=console, transient=True, auto_refresh=False) as live:

        def show(state: State) -> None:
            live.update(state, refresh=True)

        yield State(console, clock, show)


@dataclass
class Plain:
    """One line for each stage, with the best candidate where that has changed."""

    console: Console
    stage: str = ""
    best: str = ""

    def __call__(self, stage: str, share: float, result: Result) -> None:
        """Show a stage, unless it is the one before."""
        stage, best = stage.split(":")[0], result.chosen
        if stage == self.stage:
            return
        news = f" (best so far: {best})" if best != self.best else ""
        self.stage, self.best = stage, best
        text = in_a_line(self.console.spelled(f"{stage}{news}"))
        for line in wrapped(text, self.console.width, f"[{share:4.0%}] "):
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)


@dataclass
class State:
    """The lines on a terminal: a bar with the time left, the stage, and the best so far: the answer
    if the fit ended now, and the others that no candidate beats in loss, time and size at once.

    Attributes:
        show: draws the lines.
    """

    console: Console
    clock: Callable[[], float]
    show: Callable[[State], None] = lambda _: None
    stage: str = ""
    share: float = 0.0
    result: Result | None = None
    begin: float = field(init=False)
    drawn: float = field(init=False)

    def __post_init__(self) -> None:
        self.begin = self.drawn = self.clock()

    def __call__(self, stage: str, share: float, result: Result) -> None:
        """Show a stage, unless the lines were drawn just now and it is the one before."""
        is_new = stage.split(":")[0] != self.stage.split(":")[0]
        self.stage, self.share, self.result = stage, share, result
        if is_new or self.clock() - self.drawn > OFTEN:
            self.drawn = self.clock()
            self.show(self)

    def __rich__(self) -> Text:
        return Text("\n".join(self.lines()), no_wrap=True, overflow="ellipsis")

    def lines(self) -> list[str]:
        """As they are shown now."""
        full = round(BAR * self.share)
        bar = "█" * full + "░" * (BAR - full)
        texts = [self.stage, *([] if self.result is None else best_so_far(self.result))]
        spelled = [in_a_line(self.console.spelled(text)) for text in texts]
        return [f"{bar} {self.share:4.0%}  {self._left()}".rstrip(),
                *(shortened(text, self.console.width) for text in spelled)]  # fmt: skip

    def _left(self) -> str:
        spent = self.clock() - self.begin
        if self.share < EARLY or self.share >= 1:
            return ""
        left = spent * (1 - self.share) / self.share
        return f"about {time_in_words(left)} left"


def best_so_far(result: Result) -> list[str]:
    """The answer if the fit ended now, how much was tried, and what else no candidate beats in
    loss, time and size at once."""
    tried = [trial for trial in result.trials if trial.status in TRIED]
    best, front = result.answer, [trial for trial in result.trials if trial.pareto]
    figures = "" if best.key == result.baseline.key else f": {_figures(best, result)}"
    lines = [f"best so far: {result.named(best)}{figures}"]
    if tried:
        kept = sum(trial.status == Status.KEPT for trial in tried)
        lines.append(f"{len(tried)} tried, {kept} within the budget")
    others = [trial for trial in in_order(result, front) if trial.key != best.key][:MOST]
    return lines + [f"    {_figures(trial, result)}: {result.named(trial)}" for trial in others]


def _figures(trial: Trial, result: Result) -> str:
    """What a candidate takes by the goal, and what it loses."""
    share, drop = result.aim.share(trial, result.baseline), trial.drop
    parts = [share_in_words(share, result.goal)] if math.isfinite(share) else []
    if drop is not None:
        most = digits(drop.bound, drop.unit)
        parts.append(f"{measured(drop.drop, drop.unit)} lost (at most {most})")
    return ", ".join(parts)


def time_in_words(seconds: float) -> str:
    """A time for people.

    >>> time_in_words(42), time_in_words(200), time_in_words(4000)
    ('45 s', '3 min', '1 h 7 min')
    """
    if seconds < 90:
        return f"{5 * math.ceil(seconds / 5)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
