"""Route: the runtime, the precision and the rounding in which a search goes on."""

from __future__ import annotations

from dataclasses import dataclass

from penjing.search.strategies.beginning import best_float_way
from penjing.search.strategies.rounding import Rounding
from penjing.search.strategies.schemes import FEWER_BITS, Passes, label_of
from penjing.search.study import Study
from penjing.search.ways import Way
from penjing.trials.candidate import Candidate
from penjing.trials.trial import Trial

ROOM = 0.5
"""Fewer bits than eight may lose this share of the budget, so that some is left for cuts."""
NAME = "route"
"""Under which the ledger remembers it."""


@dataclass(frozen=True)
class Route:
    """How all files of a search are made.

    Attributes:
        way: the runtime, and the format of real numbers.
        scheme: the passes that round, which come last; empty in float.
        label: what follows the title of each file.
        trial: the uncut network's.
    """

    way: Way
    scheme: Passes
    label: str
    trial: Trial

    @property
    def candidate(self) -> Candidate:
        """The uncut network's."""
        return self.way.candidate(*self.scheme)

    @classmethod
    def of(cls, study: Study, rounding: Rounding) -> Route | None:
        """The best way by the goal in which the uncut network keeps the budget; None without any.

        Integers keep it if what they lose is within the budget, since training comes after. The
        choice is remembered: a resumed fit goes on in the same way.
        """
        known = study.ledger.recall(NAME)
        if known is None:
            chosen = _chosen(study, rounding)
            if chosen is None:
                return None
            scheme, way = chosen
            known = [scheme, way.runtime.name, way.floats]
            study.ledger.remember(NAME, known)
        scheme, runtime, floats = known
        way = next(w for w in study.ways.every if (w.runtime.name, w.floats) == (runtime, floats))
        passes = (FEWER_BITS | rounding.recipes)[scheme] if scheme else ()
        trial = study.ledger.trial(way.candidate(*passes).key)
        if trial is None or trial.drop is None:
            return None
        return cls(way, passes, f" + {label_of(scheme)}" if scheme else "", trial)


def _chosen(study: Study, rounding: Rounding) -> tuple[str, Way] | None:
    """The scheme, empty in float, and the way."""
    floats, aim = best_float_way(study), study.result.aim
    known = rounding.every
    if aim.goal == "latency":  # else several widths of bits may have been tried
        mine = rounding.plain, rounding.way
        known = {mine: known[mine]} if mine in known else {}
    able = {
        how: trial
        for how, trial in known.items()
        if trial.drop is not None
        and trial.drop.drop <= (ROOM if how[0] in FEWER_BITS else 1.0) * study.max_drop
    }
    plain = study.original(floats)
    if plain is not None and plain.drop is not None:
        able["", floats] = plain
    original = study.result.baseline
    return min(able, key=lambda how: aim.share(able[how], original), default=None)
