"""Quick: try the recipes that pay most often, the most promising first."""

from __future__ import annotations

from dataclasses import dataclass

from penjing.search.strategies.beginning import (
    best_float_way,
    look_ahead,
    must_try,
    refined,
    try_unpruned,
)
from penjing.search.strategies.cutting import CUTS, Cutting
from penjing.search.strategies.rounding import Rounding
from penjing.search.study import Proposals, Study


@dataclass(frozen=True)
class Quick:
    """The default strategy.

    It tries, in this order:

    1. the original and int8 in every runtime and precision, however little time there is,
    2. other quantization schemes, where int8 loses too much accuracy,
    3. three widths, each with and without the chosen quantization.

    The strategy times a pruned network before it tunes it, because speed doesn't depend on the
    values of the weights. It prunes a network only if there is time to tune it, and tunes it only
    if it can win.
    """

    def propose(self, study: Study) -> Proposals:
        """See `penjing.search.study.Strategy`."""
        must = must_try(study)
        study.expect(must + 2 + 2 * len(CUTS), must)
        pace, rounding = look_ahead(study), Rounding(study)
        yield from try_unpruned(study, rounding)
        yield from refined(study, rounding)
        if pace is not None and rounding.trial is not None:
            yield from Cutting(study, rounding, best_float_way(study), pace).run()
