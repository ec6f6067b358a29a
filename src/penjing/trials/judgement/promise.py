"""Promise: which data certifies that a file keeps the budget, fixed before a candidate is made."""

from __future__ import annotations

from dataclasses import dataclass

from penjing.contract import Drop
from penjing.measure.bounds import least_samples

TEST, VALIDATION = "test", "validation"
MOST_CANDIDATES = 64
"""For so many the bounds on validation are corrected where validation certifies."""
MOST_LOOKS = 3
"""How many candidates are tested at most."""


@dataclass(frozen=True)
class Promise:
    """What a file is held to: the budget, and the data whose bound decides that it is kept.

    Attributes:
        max_drop: budget in points.
        certified_by: `TEST` or `VALIDATION`.
        confidence: of the bounds on validation.
        by_bound: whether validation selects by the bound of a drop, or by the drop itself.
        note: what the user should know of it before hours are spent; empty if nothing.
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
        over = drop.drop > self.max_drop
        what, figure = ("drop", drop.drop) if over else ("bound of the drop", drop.bound)
        return "over budget", f"{what} {figure:.2f} points, budget {self.max_drop:g}"


def promise_of(
    max_drop: float, confidence: float, validation: int, test: int, greatest: float = 1.0
) -> Promise:
    """Which of the two certifies, by their numbers of samples alone.

    The test data certifies, unless it is too small to certify even a candidate that changes no
    answer, and the validation data is large enough to do it for `MOST_CANDIDATES` candidates at
    once (Bonferroni). Validation that is too small to bound one drop selects by the drop itself.

    Args:
        greatest: the most that a sample can lose, see `measure.scores.greatest_loss`.
    """
    corrected = 1 - (1 - confidence) / MOST_CANDIDATES
    least = least_samples(max_drop / 100, greatest, confidence)
    least_corrected = least_samples(max_drop / 100, greatest, corrected)
    budget = f"a budget of {max_drop:g} points at {100 * confidence:g}% confidence"
    if least is None or least_corrected is None:
        note = (
            f"no number of samples can certify {budget} for a candidate that changes no answer; "
            "give a larger budget, or expect the original"
        )
        return Promise(max_drop, TEST, confidence, True, note)
    if test < least <= least_corrected <= validation:
        note = (
            f"{test} test samples can't certify {budget} (it takes {least}); the {validation} "
            f"validation samples decide, with bounds at {100 * corrected:.4g}% for up to "
            f"{MOST_CANDIDATES} candidates, and test only reports"
        )
        return Promise(max_drop, VALIDATION, corrected, True, note)
    by_bound, note = validation >= least, ""
    if test < least:
        note = (
            f"neither {test} test samples nor {validation} validation samples can certify {budget} "
            f"for a candidate that changes no answer; give {least} for test, or a larger budget, "
            "or expect the original"
        )
    elif not by_bound:
        note = (
            f"{validation} validation samples are too few to bound a drop within {max_drop:g} "
            f"points (it takes {least}); they select by the drop itself, and the {test} test "
            "samples certify"
        )
    return Promise(max_drop, TEST, confidence, by_bound, note)
