"""Certify: test the candidates that validation selected, on the test data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from penjing.contract import Drop
from penjing.layout import counted
from penjing.measure.scores import Scores
from penjing.trials.judgement.choice import choose, eligible
from penjing.trials.judgement.promise import MOST_TEST_EVALUATIONS, VALIDATION
from penjing.trials.judgement.wording import lost_at_most, measured
from penjing.trials.result import Result
from penjing.trials.trial import Status, Trial

MILDER, SLACK = 1.2, 0.1
"""What takes so many times as much is a milder cut. It is a way back too if its risk is above the
smallest so far by at most this share of the budget: that may be the luck of few samples. Beside
what loses nothing there is no such luck, and a milder cut must risk no more."""


def prove(result: Result, score: Callable[[Trial], Scores]) -> Result:
    """The result with the best candidate that the test data certifies, or else the original.

    Candidates are tested one after the other, in the order of `way_to_chosen`, which validation
    fixed. Behind the chosen one comes the best whose drop on validation is within the budget, but
    not its bound, if that is better: other samples may show more. Testing stops at the first one
    whose bound on the test data breaks the budget, and the last one before it is the answer. A file
    whose true drop is over the budget can only be delivered if the first such file passes, and its
    bound is wrong in at most 1 - confidence of all fits. So several evaluations on the test data
    need no correction, and the number of candidates doesn't matter.

    If no bound on validation keeps the budget, candidates whose drop on validation is within the
    budget are selected, and the test data alone decides. If the validation data certifies, the
    chosen candidate stays, and the test data is only reported.

    Source: W. Maurer, L. A. Hothorn and W. Lehmacher, "Multiple comparisons in drug clinical trials
    and preclinical assays: a-priori ordered hypotheses", 1995; A. N. Angelopoulos et al., "Learn
    then test: calibrating predictive algorithms to achieve risk control", 2021.

    Args:
        score: gives the score of a trial's file on every test sample.
    """
    original = score(result.baseline)
    result = replace(result, test_baseline=original.figure)
    result = replace(result, test_score=result.test_baseline)
    if result.certified_by == VALIDATION:
        return _reported(result, original, score)
    bold = _selected_by_drop(result)
    selected = result if _has_answer(result) else bold
    way, passed = way_to_chosen(selected), result.baseline
    if bold.best != selected.best:
        selected, way = bold, (*way, bold.answer)
    for evaluations, trial in enumerate(way, start=1):
        scores = score(trial)
        lost = original.lost(scores, result.confidence)
        result = replace(_with(result, trial), test_evaluations=evaluations)
        if lost.bound > result.max_drop:
            return _stopped(result, way, passed, lost)
        passed = trial
        result = replace(result, test_score=scores.figure, test_drop=lost)
    return replace(result, best=selected.best, reason=selected.reason)


def _has_answer(result: Result) -> bool:
    """Whether something betters the original."""
    return result.answer.key != result.baseline.key


def _selected_by_drop(result: Result) -> Result:
    """The result with a choice among the trials whose drop on validation is within the budget."""

    def selected(trial: Trial) -> Trial:
        over = trial.status == Status.OVER_BUDGET and trial.drop is not None
        if not over or trial.drop.drop > result.max_drop:  # type: ignore[union-attr]
            return trial
        reason = f"was selected by its measured loss alone, because it {trial.reason}"
        return replace(trial, status=Status.KEPT, reason=reason)

    trials = tuple(map(selected, result.trials))
    best, why = choose(result.baseline, trials, result.aim)
    if best.key == result.baseline.key:
        return result
    why += ", judged on validation by the measured loss alone; the test data certifies it"
    return replace(result, trials=trials, best=best.key, reason=why)


def _with(result: Result, trial: Trial) -> Result:
    """The result with this trial instead of the one of the same candidate."""
    rows = (trial if row.key == trial.key else row for row in result.trials)
    return replace(result, trials=tuple(rows))


def way_to_chosen(result: Result) -> tuple[Trial, ...]:
    """The trials to test, from the safest to the chosen one, by validation alone.

    There are at most `MOST_TEST_EVALUATIONS` less the one that `prove` may try behind them.

    The chosen one comes last. Before it comes the one that would be chosen among the safer ones,
    and so on down to the safest. A gain on validation counts as no change. If there are more than
    three, the first and the last are taken, and the one that lies halfway by the goal.
    """
    baseline, aim = result.baseline, result.aim
    able = [trial for trial in result.trials if eligible(trial, baseline, aim)]
    way: list[Trial] = [] if result.answer.key == baseline.key else [result.answer]

    def is_way_back(trial: Trial) -> bool:
        last, lowest = way[-1], min(map(_risk, way))
        loses = last.drop is not None and last.drop.drop != 0
        luck = SLACK * result.max_drop if loses else 0.0
        is_milder = aim.share(trial, baseline) > MILDER * aim.share(last, baseline)
        return _risk(trial) < lowest or (is_milder and _risk(trial) <= lowest + luck)

    while way:
        left = [trial for trial in able if trial not in way and is_way_back(trial)]
        best, _ = choose(baseline, left, aim)
        if best.key == baseline.key:
            break
        way.append(best)
    if len(way) >= MOST_TEST_EVALUATIONS:
        between = math.sqrt(aim.share(way[0], baseline) * aim.share(way[-1], baseline))
        way[1:-1] = [min(way[1:-1], key=lambda t: abs(math.log(aim.share(t, baseline) / between)))]
    return tuple(reversed(way))


def _risk(trial: Trial) -> float:
    """The bound on validation, with a gain counted as no change.

    A gain is luck more often than not, and a candidate that changes no answer is safer than one
    that changes many and gains.
    """
    return float("inf") if trial.drop is None else trial.drop.bound - min(trial.drop.drop, 0.0)


def _reported(result: Result, original: Scores, score: Callable[[Trial], Scores]) -> Result:
    """The result with the drop on test of the trial that validation certified."""
    if not _has_answer(result):
        return result
    scores = score(result.answer)
    lost = original.lost(scores, result.confidence)
    return replace(result, test_evaluations=1, test_score=scores.figure, test_drop=lost)


def _stopped(result: Result, way: tuple[Trial, ...], passed: Trial, lost: Drop) -> Result:
    """The result with the last candidate that passed as the answer, because the next one failed."""
    budget, failed = result.max_drop, way[result.test_evaluations - 1]
    if lost.drop > budget:
        figures = (
            f"loses {measured(lost.drop, lost.unit)} on the test data, and the budget is {budget:g}"
        )
        story = f"{failed.title} was selected on validation, but {figures}"
        reason = figures
    else:
        figures = (
            f"keeps the budget: on {lost.samples} test samples it {lost_at_most(lost)}, and the "
            f"budget is {budget:g}"
        )
        story = f"the test data can't confirm that {failed.title} {figures}"
        reason = f"is not confirmed: the test data can't show that it {figures}"
    untested = f"was not tested, because {failed.title}, which is safer, failed on the test data"
    reasons = dict.fromkeys((trial.key for trial in way[result.test_evaluations :]), untested)
    reasons[failed.key] = reason
    trials = tuple(
        replace(
            trial,
            status=Status.OVER_ON_TEST if trial.key == failed.key else trial.status,
            reason=reasons.get(trial.key, trial.reason),
        )
        for trial in result.trials
    )
    why = f"the test data confirms no candidate; {story}"
    if not _has_answer(result):
        why = f"no candidate that betters the original keeps the budget by its bound; {why}"
    if passed.key != result.baseline.key:
        why = f"it is the best candidate that the test data confirms; {story}"
    tested = counted(result.test_evaluations, "candidate")
    verb = "was" if result.test_evaluations == 1 else "were"
    note = f"{tested} {verb} evaluated on the test data, the safest first"
    return replace(result, trials=trials, best=passed.key, reason=why, notes=(*result.notes, note))
