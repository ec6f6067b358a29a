"""How far a fit is, while it runs: stage, share, time left, best candidate so far."""

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
from penjing.report.terminal import Console

BAR = 24
OFTEN = 0.25  # seconds, after which the lines are drawn again
EARLY = 0.02  # a share, before which the time left can't be told
Show = Callable[[str, float, str], None]


@contextmanager
def display(console: Console, clock: Callable[[], float] = time.monotonic) -> Iterator[Show]:
    """Shows the progress of a fit: a few lines that change on a terminal, plain lines in a pipe.

    Nothing is drawn between two calls, because a thread that draws would disturb what is timed.

    Yields:
        What the fit calls with its stage, the share done and the best candidate so far.
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

    def __call__(self, stage: str, share: float, best: str) -> None:
        """Show a stage, unless it is the one before."""
        stage = stage.split(":")[0]
        if stage == self.stage:
            return
        news = f" (best so far: {best})" if best != self.best else ""
        self.stage, self.best = stage, best
        text = in_a_line(self.console.spelled(f"{stage}{news}"))
        for line in wrapped(text, self.console.width, f"[{share:4.0%}] "):
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)


@dataclass
class State:
    """The lines on a terminal: a bar with the time left, the stage, and the best so far.

    Attributes:
        show: draws the lines.
    """

    console: Console
    clock: Callable[[], float]
    show: Callable[[State], None] = lambda _: None
    stage: str = ""
    share: float = 0.0
    best: str = ""
    begin: float = field(init=False)
    drawn: float = field(init=False)

    def __post_init__(self) -> None:
        self.begin = self.drawn = self.clock()

    def __call__(self, stage: str, share: float, best: str) -> None:
        """Show a stage, unless the lines were drawn just now and it is the one before."""
        is_new = stage.split(":")[0] != self.stage.split(":")[0]
        self.stage, self.share, self.best = stage, share, best
        if is_new or self.clock() - self.drawn > OFTEN:
            self.drawn = self.clock()
            self.show(self)

    def __rich__(self) -> Text:
        return Text("\n".join(self.lines()), no_wrap=True, overflow="ellipsis")

    def lines(self) -> list[str]:
        """As they are shown now."""
        full = round(BAR * self.share)
        bar = "█" * full + "░" * (BAR - full)
        room = self.console.width
        texts = [self.stage, f"best so far: {self.best}" if self.best else ""]
        spelled = [in_a_line(self.console.spelled(text)) for text in texts]
        return [f"{bar} {self.share:4.0%}  {self._left()}".rstrip(),
                *(shortened(text, room) for text in spelled)]  # fmt: skip

    def _left(self) -> str:
        spent = self.clock() - self.begin
        if self.share < EARLY or self.share >= 1:
            return ""
        left = spent * (1 - self.share) / self.share
        return f"about {time_in_words(left)} left"


def time_in_words(seconds: float) -> str:
    """A time for people.

    >>> time_in_words(42), time_in_words(200), time_in_words(4000)
    ('45 s', '3 min', '1 h 7 min')
    """
    if seconds < 90:
        return f"{5 * math.ceil(seconds / 5)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
