"""Choice: which trial is the answer, and why. The reason continues "... is the answer:"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from penjing.trials.judgement.aim import Aim
from penjing.trials.judgement.comparison import compared, surely_faster, tie
from penjing.trials.judgement.goal import is_sure
from penjing.trials.judgement.wording import amount, lost_at_most
from penjing.trials.trial import Status, Trial

_BEST = {"size": "smallest", "memory": "least in memory"}
_BETTER = {"latency": "faster", "size": "smaller", "memory": "smaller in memory"}
"""By goal, what the answer is of all, and beside the original."""


def is_faster(mine: Trial, theirs: Trial) -> bool:
    """Whether `mine` is faster than `theirs` beyond doubt; both are timed."""
    assert mine.latency is not None
    assert theirs.latency is not None
    return compared(mine.latency, theirs.latency).faster


def betters(trial: Trial, baseline: Trial, aim: Aim) -> bool:
    """Whether the file is better than the original by the goal, beyond doubt."""
    if aim.goal != "latency":
        return is_sure(aim.goal, trial) and aim.share(trial, baseline, at_most=True) < 1
    times = trial.latency
    return times is not None and not times.disturbed and times.verdict == "faster"


def eligible(trial: Trial, baseline: Trial, aim: Aim) -> bool:
    """Whether the trial may be the answer: it keeps the budget by the bound of its drop and the
    other limits, and betters the original, unless that exceeds them. Only an eligible trial can be
    a reason to refuse another one."""
    if trial.status != Status.KEPT or aim.exceeded(trial):
        return False
    if aim.exceeded(baseline):
        return is_sure(aim.goal, trial)
    return betters(trial, baseline, aim)


def choose(baseline: Trial, trials: Sequence[Trial], aim: Aim) -> tuple[Trial, str]:
    """The best eligible trial, and why; the baseline if none is eligible.

    Trials whose times can't be told apart from the fastest one's tie with it, and the smallest
    file of them wins. If other load disturbed all of them, the fastest of those wins that are so
    much faster than the original that the load can't be why.
    """
    able = [trial for trial in trials if eligible(trial, baseline, aim)]
    if not able:
        return _in_spite_of_load(baseline, trials, aim)
    kept = [t for t in trials if t.status == Status.KEPT and not aim.exceeded(t)]
    if aim.goal != "latency":
        best = min(able, key=lambda trial: (aim.share(trial, baseline), _ratio(trial)))
        return best, _first_of(_BEST.get(aim.goal, f"best by {aim.goal}"), len(kept), aim)
    fastest = min(able, key=_ratio)
    ties = [trial for trial in able if trial is fastest or _tie(trial, fastest)]
    best = min(ties, key=lambda trial: (_bytes(trial), _ratio(trial)))
    if len(ties) > 1:
        return best, f"it is the smallest of {len(ties)} candidates that are equally fast"
    times = [trial.latency for trial in kept]
    if all(known and not known.disturbed and known.ratio >= _ratio(best) for known in times):
        return best, _first_of("fastest", len(kept), aim)
    more = (
        "have a reliable time" if aim.exceeded(baseline) else "are clearly faster than the original"
    )
    return best, _first_of("fastest", len(able), aim, f" and {more}")


def _in_spite_of_load(baseline: Trial, trials: Sequence[Trial], aim: Aim) -> tuple[Trial, str]:
    """The fastest of the disturbed trials that are surely faster; the baseline if none is."""
    within = [t for t in trials if t.status == Status.KEPT and not aim.exceeded(t)]
    sure = [t for t in within if t.latency is not None and surely_faster(t.latency)]
    if aim.goal != "latency" or aim.exceeded(baseline) or not sure:
        return baseline, _none_eligible(baseline, trials, aim)
    what = _first_of("fastest", len(sure), aim, " and are far faster than the original")
    return min(sure, key=_ratio), f"{what}, though other programs disturbed the timing of all"


def _first_of(what: str, number: int, aim: Aim, more: str = "") -> str:
    all_of_it = "the budget and the limits" if aim.has_limits else "the budget"
    if number == 1:
        more = more.replace(" are ", " is ").replace(" have ", " has ")
        return f"it is the only candidate that keeps {all_of_it}{more}"
    return f"it is the {what} of {number} candidates that keep {all_of_it}{more}"


def _tie(trial: Trial, other: Trial) -> bool:
    mine, theirs = trial.latency, other.latency
    return mine is not None and theirs is not None and tie(mine, theirs)


def _bytes(trial: Trial) -> float:
    size = trial.measurement.file_bytes
    return float("inf") if size is None else size


def _ratio(trial: Trial) -> float:
    return float("inf") if trial.latency is None else trial.latency.ratio


def _none_eligible(baseline: Trial, trials: Sequence[Trial], aim: Aim) -> str:
    kept = [trial for trial in trials if trial.status == Status.KEPT]
    if not kept:
        return _nothing_kept(baseline, trials, aim)
    within = [trial for trial in kept if not aim.exceeded(trial)]
    if not within:
        nearest = min(kept, key=_ratio if aim.max_kb is None else _bytes)
        return (
            "no candidate that keeps the budget keeps the other limits; the nearest is "
            f"{nearest.title}, which {aim.exceeded(nearest)}"
            + ("; the original exceeds them too" if aim.exceeded(baseline) else "")
        )
    kept, goal = within, aim.goal
    better = _BETTER.get(goal, f"better by {goal}")
    why = f"no candidate that keeps the budget is {better} than the original"
    disturbed = sum(trial.latency is not None and trial.latency.disturbed for trial in kept)
    if goal == "latency" and disturbed:
        why = why.replace(" is ", " is clearly ")
        of = "all" if disturbed == len(kept) else f"{disturbed} of these"
        whose = "its timing" if len(kept) == 1 else f"the timing of {of} {len(kept)}"
        why += f"; {whose} is unreliable, because other programs were running"
    return why


def _nothing_kept(baseline: Trial, trials: Sequence[Trial], aim: Aim) -> str:
    over = [(trial.drop, trial) for trial in trials if trial.status == Status.OVER_BUDGET]
    known = [(drop, trial) for drop, trial in over if drop is not None]
    if not known:
        tested = any(trial.status == Status.OVER_ON_TEST for trial in trials)
        return "no other candidate keeps the budget" if tested else "no candidate was finished"
    drop, nearest = min(known, key=lambda pair: pair[0].bound)
    max_drop = aim.max_drop
    why = (
        f"no candidate keeps the budget of {amount(max_drop, drop.unit)}; the nearest is "
        f"{nearest.title}, which on {drop.samples} validation samples {lost_at_most(drop)}"
    )
    if drop.drop <= max_drop < drop.bound and betters(nearest, baseline, aim):
        why += "; more validation data, or a lower `confidence`, would decide it"
    return why


def with_pareto(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """The trials with their `pareto` marks set."""
    return tuple(replace(trial, pareto=_on_front(trial, trials)) for trial in trials)


def _figures(trial: Trial) -> tuple[float, float, float] | None:
    drop, latency, size = trial.drop, trial.latency, trial.measurement.file_bytes
    if latency is None or drop is None or size is None:
        return None
    if latency.disturbed and trial.status != Status.BASELINE:
        return None
    return drop.drop, latency.ratio, float(size)


def _on_front(trial: Trial, others: Sequence[Trial]) -> bool:
    mine = _figures(trial)
    if mine is None:
        return False
    known = (figures for other in others if other is not trial and (figures := _figures(other)))
    return not any(
        all(a <= b for a, b in zip(rival, mine, strict=True)) and rival != mine for rival in known
    )
