"""Promise: which data certifies that a file keeps the budget, fixed before candidates are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from penjing.contract import POINTS, Drop
from penjing.trials.judgement.wording import amount, confident, measured

TEST, VALIDATION = "test", "validation"
MOST_CANDIDATES = 64
"""If validation certifies, its bounds are corrected for so many candidates."""
MOST_TEST_EVALUATIONS = 4
"""How many candidates are evaluated on the test data at most."""

LeastOf = Callable[[float, float], int | None]


@dataclass(frozen=True)
class Promise:
    """The budget that a file must keep, and the data whose bound decides that it does.

    Attributes:
        max_drop: budget in the metric's unit.
        certified_by: `TEST` or `VALIDATION`.
        confidence: of the bounds on validation.
        by_bound: whether validation selects by the bound of a drop, or by the drop itself.
        note: what the user should know before hours are spent; empty if nothing.
    """

    max_drop: float = 0.0
    certified_by: str = TEST
    confidence: float = 0.95
    by_bound: bool = True
    note: str = ""

    def judge(self, drop: Drop) -> tuple[str, str]:
        """The status of a candidate with this drop on validation, and the reason."""
        if (drop.bound if self.by_bound else drop.drop) <= self.max_drop:
            return "kept", ""
        if drop.drop > self.max_drop:
            lost = f"loses {measured(drop.drop, drop.unit)}"
        else:
            bound = measured(drop.bound, drop.unit)
            lost = f"may lose {bound}, with {confident(drop.confidence)}"
        return "over budget", f"{lost}, and the budget is {self.max_drop:g}"


def promise_of(
    max_drop: float,
    confidence: float,
    validation: int,
    test: int,
    least_of: LeastOf,
    unit: str = POINTS,
) -> Promise:
    """Which of the two splits certifies, by their numbers of samples alone.

    As a rule the test data certifies. The validation data does if the test data is too small to
    certify even a candidate that changes no answer, and the validation data is large enough to
    certify `MOST_CANDIDATES` candidates at once (Bonferroni). If validation is too small to bound
    a single drop, candidates are selected by the drop itself.

    Args:
        least_of: how many samples certify a budget with some confidence, for a candidate that
            answers exactly as the original does; see `penjing.measure.scores.Scores.least`.
        unit: of the budget.
    """
    corrected = 1 - (1 - confidence) / MOST_CANDIDATES
    least, least_corrected = (least_of(max_drop, level) for level in (confidence, corrected))
    budget = f"a budget of {amount(max_drop, unit)} with {confident(confidence)}"
    if least is None or least_corrected is None:
        note = (
            f"no number of samples can certify {budget}, not even for a candidate that answers "
            "exactly as the original does; give a larger budget, or expect the original"
        )
        return Promise(max_drop, TEST, confidence, True, note)
    if test < least <= least_corrected <= validation:
        note = (
            f"{test} test samples can't certify {budget}, which takes {least}; so the {validation} "
            f"validation samples decide, with bounds at {confident(corrected)} for up to "
            f"{MOST_CANDIDATES} candidates, and the test data is only reported"
        )
        return Promise(max_drop, VALIDATION, corrected, True, note)
    by_bound, note = validation >= least, ""
    if test < least:
        note = (
            f"neither {test} test samples nor {validation} validation samples can certify "
            f"{budget}, not even for a candidate that answers exactly as the original does; give "
            f"{least} test samples, or a larger budget, or expect the original"
        )
    elif not by_bound:
        note = (
            f"{validation} validation samples are too few to bound a loss within "
            f"{amount(max_drop, unit)}, which takes {least}; so candidates are selected by their "
            f"measured loss, and the {test} test samples certify the answer"
        )
    return Promise(max_drop, TEST, confidence, by_bound, note)
