"""Certify: what the test data says of the candidates that validation selected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from penjing.contract import Array, Drop
from penjing.measure.scores import drop
from penjing.trials.judgement.choice import choose
from penjing.trials.judgement.promise import MOST_LOOKS, VALIDATION
from penjing.trials.result import Result
from penjing.trials.trial import Status, Trial


def prove(result: Result, score: Callable[[Trial], Array]) -> Result:
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
        score: gives the score of a trial's file on every test sample.
    """
    original = score(result.baseline)
    result = replace(result, test_baseline=float(original.mean()))
    result = replace(result, test_score=result.test_baseline)
    if result.certified_by == VALIDATION:
        return _reported(result, original, score)
    selected = result if _has_answer(result) else _selected_by_drop(result)
    way, passed = way_to_chosen(selected), result.baseline
    for looks, trial in enumerate(way, start=1):
        scores = score(trial)
        lost = drop(original, scores, result.confidence)
        result = replace(_with(result, trial), test_looks=looks)
        if lost.bound > result.max_drop:
            return _stopped(result, way, passed, lost)
        passed = trial
        result = replace(result, test_score=float(scores.mean()), test_drop=lost)
    return replace(result, best=selected.best, reason=selected.reason)


def _has_answer(result: Result) -> bool:
    """Whether something betters the original."""
    return result.answer.key != result.baseline.key


def _selected_by_drop(result: Result) -> Result:
    """The result with the choice among trials whose drop on validation is within the budget."""

    def selected(trial: Trial) -> Trial:
        over = trial.status == Status.OVER_BUDGET and trial.drop is not None
        if not over or trial.drop.drop > result.max_drop:  # type: ignore[union-attr]
            return trial
        reason = f"selected by its drop alone: {trial.reason}"
        return replace(trial, status=Status.KEPT, reason=reason)

    trials = tuple(map(selected, result.trials))
    best, why = choose(result.baseline, trials, result.goal, result.max_drop)
    if best.key == result.baseline.key:
        return result
    why += ": on validation by the drop alone, and the test data certifies it by its bound"
    return replace(result, trials=trials, best=best.key, reason=why)


def _with(result: Result, trial: Trial) -> Result:
    """The result with this trial in the place of the other one of its candidate."""
    rows = (trial if row.key == trial.key else row for row in result.trials)
    return replace(result, trials=tuple(rows))


def way_to_chosen(result: Result) -> tuple[Trial, ...]:
    """At most `MOST_LOOKS` trials from the safest to the chosen one, by validation alone.

    The chosen one comes last. Before it comes what would be chosen among those whose bound is
    smaller, where a gain counts as none, and so on down to the smallest; of more than three the
    first, the middle and the last are taken.
    """
    way: list[Trial] = [result.answer]
    while way[-1].key != result.baseline.key:
        safer = [trial for trial in result.trials if _risk(trial) < _risk(way[-1])]
        way.append(choose(result.baseline, safer, result.goal, result.max_drop)[0])
    trials = way[-2::-1]
    if len(trials) > MOST_LOOKS:
        trials = [trials[0], trials[len(trials) // 2], trials[-1]]
    return tuple(trials)


def _risk(trial: Trial) -> float:
    """The bound on validation, with a gain there counted as none: it is luck more often than not,
    and what changes no answer is safer than what changes many and gained by it."""
    return float("inf") if trial.drop is None else trial.drop.bound - min(trial.drop.drop, 0.0)


def _reported(result: Result, original: Array, score: Callable[[Trial], Array]) -> Result:
    """The result with the drop on test of the trial that validation certified."""
    if not _has_answer(result):
        return result
    scores = score(result.answer)
    lost = drop(original, scores, result.confidence)
    return replace(result, test_looks=1, test_score=float(scores.mean()), test_drop=lost)


def _stopped(result: Result, way: tuple[Trial, ...], passed: Trial, lost: Drop) -> Result:
    """The result whose answer is the last that passed, as the next one failed."""
    budget, failed = result.max_drop, way[result.test_looks - 1]
    if lost.drop > budget:
        reason = f"lost {lost.drop:.2f} points on test, budget {budget:g}"
        story = f"{failed.title} was selected on validation but lost {lost.drop:.2f} points on test"
    else:
        figures = (
            f"drop {lost.drop:.2f}, bound {lost.bound:.2f} of {budget:g}, {lost.samples} samples"
        )
        reason = f"test can't show that it keeps the budget: {figures}"
        story = f"test can't show that {failed.title} keeps the budget: {figures}"
    untested = f"not tested: {failed.title}, whose bound on validation is smaller, failed there"
    reasons = dict.fromkeys((trial.key for trial in way[result.test_looks :]), untested)
    reasons[failed.key] = reason
    trials = tuple(
        replace(
            trial,
            status=Status.OVER_ON_TEST if trial.key == failed.key else trial.status,
            reason=reasons.get(trial.key, trial.reason),
        )
        for trial in result.trials
    )
    why = f"the test data certifies nothing; {story}"
    if not _has_answer(result):
        why = f"nothing that betters the original keeps the budget by its bound; {why}"
    if passed.key != result.baseline.key:
        why = f"the last that the test data certifies on the way to {way[-1].title}; {story}"
    note = f"looks at the test data: {result.test_looks}, the safest candidate first"
    return replace(result, trials=trials, best=passed.key, reason=why, notes=(*result.notes, note))
