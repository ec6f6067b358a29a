"""Quick: try the recipes that pay most often, the most promising first."""

from __future__ import annotations

from dataclasses import dataclass

from penjing.search.strategies.beginning import begun, best_float_way
from penjing.search.strategies.cutting import CUTS, Cutting
from penjing.search.strategies.rounding import Asking, Rounding
from penjing.search.study import Proposals, Study
from penjing.trials.contract import Pace
from penjing.trials.judgement.goal import weights_of
from penjing.trials.trial import Status

ROUNDS = 2 * len(CUTS)
"""How many times `cut` proposes, about."""
FLOAT_SHARE = 0.15  # the largest share of the time left that leaving layers in float may take


@dataclass(frozen=True)
class Quick:
    """The strategy for those who have little time.

    It tries, in this order:

    1. the original and int8 in every runtime and precision,
    2. other quantization schemes, where int8 loses too much accuracy,
    3. three widths, each with and without the chosen quantization.

    The strategy times a pruned network before it tunes it, because speed doesn't depend on the
    values of the weights. It prunes a network only if there is time to tune it, and tunes it only
    if it can win.
    """

    def propose(self, study: Study) -> Proposals:
        """See `penjing.search.study.Strategy`."""
        pace, rounding = yield from begun(study, 2 + ROUNDS)
        yield from refined(study, rounding)
        yield from cut(study, rounding, pace)


def cut(study: Study, rounding: Rounding, pace: Pace | None) -> Asking:
    """Try three widths if the network can be trained."""
    if pace is not None and rounding.trial is not None:
        yield from Cutting(study, rounding, best_float_way(study), pace).run()


def refined(study: Study, rounding: Rounding) -> Asking:
    """Try fewer bits than eight if a small file is wanted and eight keep the budget, and slow
    layers in float if a fast one is."""
    trial = rounding.trial
    if trial is None:
        return
    timing = 2 * study.evaluator.timing_seconds
    if "size" in weights_of(study.goal) and trial.status == Status.KEPT:
        yield from rounding.try_fewer_bits()
    if "latency" not in weights_of(study.goal) and trial.status == Status.KEPT:
        return
    if study.affords(trial.seconds + timing, FLOAT_SHARE):
        yield from rounding.leave_in_float()
    else:
        study.note(f"too little time to look for layers that {trial.title} slows down")
