"""Looks at the test data: what it certifies of the candidates that validation selected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from penjing.contract import Array, Drop
from penjing.measure.scores import drop
from penjing.search.promise import MOST_LOOKS, VALIDATION
from penjing.search.result import Candidate, Result, choose
from penjing.search.workshop import BASELINE

OVER_ON_TEST = "over on test"


def prove(result: Result, score: Callable[[str], Array]) -> Result:
    """The result with the best candidate that the test data certifies; the original if none.

    Candidates are tested one after the other along `way_to_chosen`, which validation fixed, as
    long as each one's bound on test keeps the budget; the last that did is the answer. To deliver
    a file whose true drop is over the budget, the first such file on the way has to pass, and its
    bound is wrong in at most 1 - confidence of all fits. So several looks need no correction, and
    the number of candidates doesn't matter.

    Where no bound on validation leaves anything to choose, what has a drop within the budget there
    is selected: the test data decides, and it alone. Where the validation data certifies, the
    chosen one stays, and test only reports.

    Source: W. Maurer, L. A. Hothorn and W. Lehmacher, "Multiple comparisons in drug clinical trials
    and preclinical assays: a-priori ordered hypotheses", 1995; A. N. Angelopoulos et al., "Learn
    then test: calibrating predictive algorithms to achieve risk control", 2021.

    Args:
        score: gives the score of every test sample, by the candidate's name.
    """
    original = score(BASELINE)
    result = replace(result, test_baseline=float(original.mean()))
    result = replace(result, test_score=result.test_baseline)
    if result.certified_by == VALIDATION:
        return _reported(result, original, score)
    selected = result if result.chosen != BASELINE else _selected_by_drop(result)
    way, passed = way_to_chosen(selected), BASELINE
    for looks, name in enumerate(way, start=1):
        scores = score(name)
        found = drop(original, scores, result.confidence)
        result = replace(_with(result, selected.find(name)), test_looks=looks)
        if found.bound > result.max_drop:
            return _stopped(result, way, passed, name, found)
        passed = name
        result = replace(result, test_score=float(scores.mean()), test_drop=found)
    return replace(result, chosen=selected.chosen, reason=selected.reason)


def _selected_by_drop(result: Result) -> Result:
    """The result with the choice among candidates whose drop on validation is within the budget."""
    candidates = tuple(
        replace(one, status="kept", reason=f"selected by its drop alone: {one.reason}")
        if one.status == "over budget" and result.drop(one.name) <= result.max_drop
        else one
        for one in result.candidates
    )
    best, why = choose(result.baseline, candidates, result.goal, result.max_drop)
    if best.name == BASELINE:
        return result
    why += ": on validation by the drop alone, and the test data certifies it by its bound"
    return replace(result, candidates=candidates, chosen=best.name, reason=why)


def _with(result: Result, candidate: Candidate) -> Result:
    """The result with this candidate in the place of the one of its name."""
    rest = (candidate if one.name == candidate.name else one for one in result.candidates)
    return replace(result, candidates=tuple(rest))


def way_to_chosen(result: Result) -> tuple[str, ...]:
    """At most `MOST_LOOKS` candidates from the safest to the chosen one, by validation alone.

    The chosen one comes last. Before it comes what would be chosen among those whose bound is
    smaller, where a gain counts as none, and so on down to the smallest; of more than three the
    first, the middle and the last are taken.
    """
    if result.chosen == BASELINE:
        return ()
    way: list[Candidate] = [result.find(result.chosen)]
    while way[-1].name != BASELINE:
        safer = [one for one in result.candidates if _risk(one) < _risk(way[-1])]
        way.append(choose(result.baseline, safer, result.goal, result.max_drop)[0])
    names = [one.name for one in reversed(way[:-1])]
    if len(names) > MOST_LOOKS:
        names = [names[0], names[len(names) // 2], names[-1]]
    return tuple(names)


def _risk(candidate: Candidate) -> float:
    """The bound on validation, with a gain there counted as none: it is luck more often than not,
    and what changes no answer is safer than what changes many and gained by it."""
    found = candidate.measurement.drop
    return float("inf") if found is None else found.bound - min(found.drop, 0.0)


def _reported(result: Result, original: Array, score: Callable[[str], Array]) -> Result:
    """The result with the drop on test of the candidate that validation certified."""
    if result.chosen == BASELINE:
        return result
    scores = score(result.chosen)
    found = drop(original, scores, result.confidence)
    return replace(result, test_looks=1, test_score=float(scores.mean()), test_drop=found)


def _stopped(result: Result, way: tuple[str, ...], passed: str, failed: str, found: Drop) -> Result:
    """The result whose answer is the last that passed, as the next one failed."""
    budget = result.max_drop
    if found.drop > budget:
        reason = f"lost {found.drop:.2f} points on test, budget {budget:g}"
        story = f"{failed} was selected on validation but lost {found.drop:.2f} points on test"
    else:
        figures = (
            f"drop {found.drop:.2f}, bound {found.bound:.2f} of {budget:g}, {found.samples} samples"
        )
        reason = f"test can't show that it keeps the budget: {figures}"
        story = f"test can't show that {failed} keeps the budget: {figures}"
    reasons = {failed: reason}
    for name in way[way.index(failed) + 1 :]:
        reasons[name] = f"not tested: {failed}, whose bound on validation is smaller, failed there"
    candidates = tuple(
        replace(
            one,
            status=OVER_ON_TEST if one.name == failed else one.status,
            reason=reasons.get(one.name, one.reason),
        )
        for one in result.candidates
    )
    why = f"the test data certifies nothing; {story}"
    if result.chosen == BASELINE:
        why = f"nothing that betters the original keeps the budget by its bound; {why}"
    if passed != BASELINE:
        why = f"the last that the test data certifies on the way to {way[-1]}; {story}"
    note = f"looks at the test data: {result.test_looks}, the safest candidate first"
    return replace(
        result, candidates=candidates, chosen=passed, reason=why, notes=(*result.notes, note)
    )
