"""Route: the runtime, the precision and the rounding in which a search goes on."""

from __future__ import annotations

from dataclasses import dataclass

from penjing.search.strategies.beginning import best_float_way
from penjing.search.strategies.rounding import Passes, Rounding
from penjing.search.study import Study
from penjing.search.ways import Way
from penjing.trials.candidate import Candidate
from penjing.trials.trial import Trial

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
        """The fastest way in which the uncut network keeps the budget; None without any.

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
        passes = rounding.recipes[scheme] if scheme else ()
        trial = study.ledger.trial(way.candidate(*passes).key)
        if trial is None or trial.drop is None:
            return None
        return cls(way, passes, f" + {rounding.label}" if scheme else "", trial)


def _chosen(study: Study, rounding: Rounding) -> tuple[str, Way] | None:
    """The scheme, empty in float, and the way."""
    floats, rounded = best_float_way(study), rounding.trial
    plain = study.original(floats)
    able = (
        rounded is not None
        and rounded.drop is not None
        and rounded.drop.drop <= study.max_drop
        and rounded.latency is not None
    )
    if able and (plain is None or plain.latency is None or _ratio(rounded) < _ratio(plain)):
        return rounding.chosen, rounding.way
    return None if plain is None or plain.drop is None else ("", floats)


def _ratio(trial: Trial | None) -> float:
    assert trial is not None
    assert trial.latency is not None
    return trial.latency.ratio
