"""Looks at the test data: one for each candidate that is tested, and what they cost the claim."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from penjing.contract import Array, Drop
from penjing.measure.scores import drop
from penjing.search.result import Result, choose
from penjing.search.workshop import BASELINE

MOST_LOOKS = 3
OVER_ON_TEST = "over on test"


def prove(result: Result, score: Callable[[str], Array]) -> Result:
    """The result with the best candidate that doesn't lose more than the budget on test either.

    Candidates that kept the budget are tested in the order in which `choose` takes them, until one
    passes; after `MOST_LOOKS`, or where none is left, the answer is the original.

    Each look is a chance to pass by luck. With k looks taken the bound of the one that passed is
    therefore at confidence 1 - (1 - c) / k (Bonferroni). As k itself follows from what was seen,
    over all fits a bound is wrong at most (1 + 1/2 + 1/3) (1 - c) of the time.

    Args:
        score: gives the score of every test sample, by the candidate's name.
    """
    original = score(BASELINE)
    result = replace(result, test_baseline=float(original.mean()))
    lost: list[str] = []
    while result.chosen != BASELINE and result.test_looks < MOST_LOOKS:
        result = replace(result, test_looks=result.test_looks + 1)
        mine = score(result.chosen)
        found = drop(original, mine, 1 - (1 - result.confidence) / result.test_looks)
        if found.drop <= result.max_drop:
            result = replace(result, test_score=float(mine.mean()), test_drop=found)
            return _explained(result, lost)
        points = f"{found.drop:.2f} points"
        lost.append(f"{result.chosen} kept the budget on validation but lost {points} on test")
        result = _without_chosen(result, found)
    if result.chosen != BASELINE:
        why = f"no more than {MOST_LOOKS} candidates are tested"
        result = replace(result, chosen=BASELINE, reason=why)
    return _explained(replace(result, test_score=result.test_baseline), lost)


def _without_chosen(result: Result, found: Drop) -> Result:
    """The next best in the place of the chosen one, which lost too much on test."""
    reason = f"lost {found.drop:.2f} points on test, budget {result.max_drop:g}"
    failed = replace(result.find(result.chosen), status=OVER_ON_TEST, reason=reason)
    rest = tuple(failed if one.name == failed.name else one for one in result.candidates)
    best, why = choose(result.baseline, rest, result.goal, result.max_drop)
    if not any(one.status == "kept" for one in rest):
        why = "nothing else keeps the budget"
    return replace(result, candidates=rest, chosen=best.name, reason=why)


def _explained(result: Result, lost: list[str]) -> Result:
    """The result that says which candidates failed on test, if any did, and what that means."""
    if not lost:
        return result
    note, found = f"looks at the test data: {result.test_looks}", result.test_drop
    if found is not None:
        note += (
            f"; several looks weaken a claim, so the bound on test is at "
            f"{100 * found.confidence:.4g}% instead of {100 * result.confidence:.4g}%"
        )
    return replace(result, reason="; ".join([result.reason, *lost]), notes=(*result.notes, note))
