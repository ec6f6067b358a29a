"""Next faster: why the answer isn't faster than it is, and what would decide it."""

from __future__ import annotations

import math

from penjing.trials.judgement.choice import is_faster
from penjing.trials.judgement.wording import amount, lost_at_most, ratio, rounded_up
from penjing.trials.result import Result
from penjing.trials.trial import Status, Trial

TRAINED = "Tune"
CUTS = {"PruneChannels", "Drop", "Factorize", "Merge"}
MOST_TIMES = 20
"""More data than so many times as much is asked of nobody."""


def next_faster(result: Result) -> tuple[str, ...]:
    """Two lines: what the nearest faster candidate would have lost, and what would decide it. None
    if no file that was measured is faster than the answer."""
    answer = result.answer
    if result.goal != "latency" or answer.latency is None:
        return ()
    over = [trial for trial in result.trials if _is_over(trial, result)]
    over = [trial for trial in over if is_faster(trial, answer)]
    if not over:
        return ()
    trial = min(over, key=lambda t: t.drop.bound if t.drop else math.inf)
    drop = trial.drop
    assert drop is not None
    assert trial.latency is not None
    share = ratio(trial.latency.ratio / answer.latency.ratio)
    return (
        f"the nearest faster candidate is {trial.title}, in {share} of the answer's time: on "
        f"{drop.samples} validation samples it {lost_at_most(drop)}; the budget is "
        f"{amount(result.max_drop, drop.unit)}",
        f"what would decide it: {_deciding(trial, result)}",
    )


def _is_over(trial: Trial, result: Result) -> bool:
    """Whether only its loss on validation stands against it; what failed on the test data has its
    reason already."""
    times = trial.latency
    is_over = trial.status == Status.OVER_BUDGET and not result.aim.exceeded(trial)
    return is_over and trial.drop is not None and times is not None and not times.disturbed


def _deciding(trial: Trial, result: Result) -> str:
    """What would let this candidate keep the budget, or show that it can't."""
    drop, budget = trial.drop, result.max_drop
    assert drop is not None
    if drop.drop < budget:
        times = ((drop.bound - drop.drop) / (budget - drop.drop)) ** 2
        if times <= MOST_TIMES:
            more = math.ceil(times * drop.samples / 100) * 100
            return f"about {more} validation samples, if its loss stays what it is"
    other = f"or a budget of {amount(rounded_up(drop.bound, drop.unit), drop.unit)}"
    if TRAINED in trial.methods:
        return f"more time for training, since longer training lowers its loss; {other}"
    if CUTS.intersection(trial.methods):
        return f"training it, with `strategy='joint'` and more minutes; {other}"
    return f"training it with its rounding in place, by a recipe with Tune behind Quantize; {other}"
