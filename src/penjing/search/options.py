"""FitOptions: how a fit is made, as frozen data that refuses what can't work."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from penjing.errors import InputError
from penjing.search.strategies.quick import Quick
from penjing.search.study import Strategy
from penjing.trials.evaluation.instruments import Instruments
from penjing.trials.result import Result

MOST_SEED = 2**63
GOALS = ("latency", "size")

Progress = Callable[[str, float, str], None]
"""Called with the stage, the share done (0..1) and the best candidate so far."""
Report = Callable[[Result, Path], object]
"""Called with a result and its folder."""


@dataclass(frozen=True)
class FitOptions:
    """What a fit may be told beside its task, target, budget, time and folder.

    >>> FitOptions(goal="size", seed=1).goal
    'size'

    Attributes:
        goal: `"latency"` or `"size"`.
        seed: of everything random.
        confidence: of the bound on the drop.
        python: of a device, its interpreter that has the runtimes.
        ssh_config: of a device, OpenSSH's configuration to use instead of the user's own.
        overwrite: replace an earlier result in the folder; what penjing didn't write there stays.
        resume: go on with an interrupted fit in the folder, of the same model, data and options;
            what was finished there isn't done again. Of a finished one, give the result; where
            there is none, begin.
        epochs: of each training, however long that takes, instead of minutes: then everything
            that can win is tried, and no decision hangs on the clock.
        strategy: proposes the candidates.
        instruments: the clock and all that measures on this machine.
        progress: called often with what the fit is at.
        report: writes `report.md` and `plot.png` about the result into the folder, at the end.
    """

    goal: str = "latency"
    seed: int = 0
    confidence: float = 0.95
    python: str = "python3"
    ssh_config: Path | None = None
    overwrite: bool = False
    resume: bool = False
    epochs: float | None = None
    strategy: Strategy = field(default_factory=Quick)
    instruments: Instruments = field(default_factory=lambda: Instruments())  # the name, for tests
    progress: Progress = lambda *_: None
    report: Report | None = None

    def require_possible(self, max_drop: float, minutes: float) -> None:
        """Raise InputError for an option that is out of range.

        Args:
            max_drop, minutes: the fit's own.
        """
        if not (math.isfinite(max_drop) and 0 <= max_drop <= 100):
            raise InputError(
                "`max_drop` must be points between 0 and 100 (1.0 is one percentage point); "
                f"found {max_drop}"
            )
        if not (math.isfinite(minutes) and minutes > 0):
            raise InputError(f"`minutes` must be a positive number; found {minutes}")
        if self.epochs is not None and not (math.isfinite(self.epochs) and self.epochs > 0):
            raise InputError(f"`epochs` must be a positive number; found {self.epochs}")
        if self.goal not in GOALS:
            raise InputError(f"`goal` must be latency or size; found {self.goal!r}")
        if not 0.5 <= self.confidence < 1:
            raise InputError(f"`confidence` must be in [0.5, 1); found {self.confidence}")
        if not 0 <= self.seed < MOST_SEED:
            raise InputError(f"`seed` must be a whole number from 0 on; found {self.seed}")
        if self.overwrite and self.resume:
            raise InputError("`overwrite` and `resume` exclude each other; give one of them")
