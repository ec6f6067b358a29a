"""What tests of fits share: a fit by keywords, and trials made of a few words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from penjing.contract import Json, Measurement
from penjing.search import fit as fitting
from penjing.search.options import FitOptions
from penjing.search.strategies import Quick
from penjing.tasks.task import Task
from penjing.trials.candidate import Candidate
from penjing.trials.result import Result
from penjing.trials.trial import Status, Trial


def fit(
    task: Task | str,
    target: str = "cpu",
    max_drop: float = 1.0,
    minutes: float = 10.0,
    out: Path | str = "fitted",
    **options: Any,
) -> Result:
    """`penjing.fit` with its options by name; None is the default. Unless a test says otherwise, it
    searches quickly."""
    given = {name: value for name, value in options.items() if value is not None}
    given.setdefault("strategy", Quick())
    return fitting.fit(task, target, max_drop, minutes, out, FitOptions(**given))


def trial(
    title: str,
    recipe: tuple[Json, ...] = (),
    status: str = "kept",
    reason: str = "",
    measurement: Measurement | None = None,
    **more: Any,
) -> Trial:
    """A trial whose candidate is another one than that of every other title."""
    runtime, floats = more.pop("runtime", "onnxruntime"), more.pop("floats", "float32")
    steps = recipe if recipe or title == "original" else ({"method": title},)
    candidate = Candidate(steps, runtime, floats)
    return Trial(candidate, title, Status(status), reason, measurement or Measurement(), **more)
