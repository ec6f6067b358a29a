"""Budget: how much of the metric may be lost, as the user says it and in the metric's unit."""

from __future__ import annotations

import math
from dataclasses import dataclass

from penjing.contract import POINTS
from penjing.errors import InputError
from penjing.measure.in_pytorch import InPyTorch
from penjing.measure.scores import judge
from penjing.tasks.task import Task
from penjing.trials.judgement.wording import amount, figure

SMALLEST = 0.05
"""In points. Someone who asks for less may have meant a fraction."""
WANTED = "`max_drop` must be points between 0 and 100 (1.0 is one percentage point)"


@dataclass(frozen=True)
class Budget:
    """How much of the metric may be lost.

    Attributes:
        value: in the metric's unit, or in hundredths of the original's figure.
        relative: whether the latter.
    """

    value: float
    relative: bool = False

    @classmethod
    def of(cls, given: float | str) -> Budget:
        """Read what the user gave: a number, or hundredths of the original's figure.

        Raises:
            InputError: it is neither, or negative.

        >>> Budget.of("5%"), Budget.of(0.5)
        (Budget(value=5.0, relative=True), Budget(value=0.5, relative=False))
        """
        text = str(given).strip()
        relative = text.endswith("%")
        try:
            value = float(text[:-1] if relative else text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0) or (relative and value > 100):
            raise InputError(
                f"{WANTED}, an amount in the metric's own unit, or a share of the original's "
                f"figure such as '5%'; found {given}"
            )
        return cls(value, relative)

    def in_units(self, task: Task) -> tuple[float, tuple[str, ...]]:
        """The budget in the unit of the task's metric, and notes for the user.

        For a relative budget, the model is run on the task's validation data.

        Raises:
            InputError: it is more than 100 points.
        """
        unit = task.metric.unit
        if self.relative:
            assert task.validation is not None
            whole = judge(InPyTorch(task.model), task.validation, task.metric).figure
            value = float(f"{self.value / 100 * abs(whole) * task.metric.scale:.4g}")
            note = (
                f"{self.value:g} % of the original's {task.metric.name}, which is "
                f"{figure(whole, unit)} on the validation data, is a budget of "
                f"{amount(value, unit)}"
            )
            return value, (note,)
        if unit != POINTS:
            return self.value, ()
        if self.value > 100:
            raise InputError(f"{WANTED}; found {self.value:g}")
        if 0 < self.value < SMALLEST:
            note = (
                f"the budget is only {self.value:g} percentage points; for one percentage point, "
                "use `max_drop=1.0`"
            )
            return self.value, (note,)
        return self.value, ()


def in_words(max_drop: float, task: Task) -> str:
    """What a fit is held to.

    >>> import penjing
    >>> task = penjing.find_task("digits")
    >>> in_words(1.0, task)
    'the budget is at most 1 point lower accuracy'
    """
    metric = task.metric
    worse = "lower" if metric.higher else "higher"
    return f"the budget is at most {amount(max_drop, metric.unit)} {worse} {metric.name}"
