"""FitOptions: the options of a fit, as frozen data with a check of their ranges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from penjing.errors import InputError, require_positive
from penjing.search.predict.known import user_folder
from penjing.search.strategies.joint import Joint
from penjing.search.study import Strategy
from penjing.trials.evaluation.instruments import Instruments
from penjing.trials.judgement.goal import weights_of
from penjing.trials.recipe import Recipe
from penjing.trials.result import Result

MOST_SEED = 2**63

Progress = Callable[[str, float, Result], None]
"""A function that is called with the stage, the share done (0..1) and the result so far, whose
`chosen` is the best candidate's title."""
Report = Callable[[Result, Path], object]
"""A function that is called with a result and its folder."""


@dataclass(frozen=True)
class FitOptions:
    """The options of a fit besides its task, target, budget, time and folder.

    >>> import penjing
    >>> options = penjing.FitOptions(goal="size", seed=1)
    >>> options.goal, options.confidence
    ('size', 0.95)

    Attributes:
        goal: what to make small: `"latency"`, `"size"` (of the file), `"memory"` (of the values
            that are alive at once), or several with weights, such as `"latency=2,size=1"`.
        seed: the seed of everything random.
        confidence: the confidence of the bound on the drop, from 0.5 to below 1.
        python: for a device: its Python interpreter that has the runtimes.
        ssh_config: for a device: a configuration file of OpenSSH to use instead of the user's own.
        overwrite: whether to replace an earlier result in the folder. Files that penjing didn't
            write stay.
        resume: whether to continue an interrupted fit in the folder. The model, data and options
            must be the same; finished work isn't repeated. If that fit is finished, its result is
            returned. If there is none, a new fit starts.
        epochs: the length of each training in epochs, however long that takes, instead of
            `minutes`. Then every candidate that can win is tried, and nothing depends on the clock.
        max_ms: the longest time of one sample that the answer may take, in milliseconds on the
            target; None for any.
        max_kb: the largest file that the answer may be, in kilobytes of 1,000 bytes.
        recipes: recipes of your own by name. They are tried before anything is pruned, each in the
            best runtime that was found for integers or for floats.
        strategy: what proposes the candidates; `Joint` by default, which goes on as `Quick` does
            where there is too little time or nothing to train.
        cache: the folder that keeps what operators cost here, so that a later fit of such a network
            needn't learn it; None keeps nothing, and with `epochs` nothing is kept. `PENJING_CACHE`
            in the environment names another one than the user's.
        instruments: the clock and everything that measures on this machine.
        progress: a function that is called often with the current stage.
        report: a function that writes `report.md`, `plot.png` and `report.html` into the folder at
            the end.
    """

    goal: str = "latency"
    seed: int = 0
    confidence: float = 0.95
    python: str = "python3"
    ssh_config: Path | None = None
    overwrite: bool = False
    resume: bool = False
    epochs: float | None = None
    max_ms: float | None = None
    max_kb: float | None = None
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    strategy: Strategy = field(default_factory=Joint)
    cache: Path | None = field(default_factory=user_folder)
    instruments: Instruments = field(default_factory=lambda: Instruments())  # the name, for tests
    progress: Progress = lambda *_: None
    report: Report | None = None

    def require_possible(self, minutes: float) -> None:
        """Raise InputError for an option that is out of range.

        Args:
            minutes: the argument of the fit.
        """
        require_positive("`minutes`", minutes)
        if self.epochs is not None:
            require_positive("`epochs`", self.epochs)
        weights_of(self.goal)
        for name in ("max_ms", "max_kb"):
            limit = getattr(self, name)
            if limit is not None:
                require_positive(f"`{name}`", limit)
        if not 0.5 <= self.confidence < 1:
            raise InputError(
                f"`confidence` must be at least 0.5 and below 1; found {self.confidence}"
            )
        if not 0 <= self.seed < MOST_SEED:
            raise InputError(f"`seed` must be an integer from 0 to 2**63 - 1; found {self.seed}")
        if self.overwrite and self.resume:
            raise InputError("`overwrite` and `resume` can't be combined; give one of them")
