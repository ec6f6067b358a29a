"""Joint: search blocks and widths together, by what they cost in the file that ships."""

from __future__ import annotations

from dataclasses import dataclass

from penjing.search.strategies.beginning import (
    best_float_way,
    look_ahead,
    must_try,
    try_unpruned,
)
from penjing.search.strategies.cutting import CUTS, Cutting
from penjing.search.strategies.descent import TURNS, Descent
from penjing.search.strategies.rounding import Rounding
from penjing.search.study import Proposals, Study


@dataclass(frozen=True)
class Joint:
    """The strategy for those who have time to train.

    It tries, in this order:

    1. the original and int8 in every runtime and precision, and other quantization schemes where
       int8 loses too much accuracy, as `Quick` does; the best of them decides the runtime and the
       precision in which the search goes on,
    2. no files, but what each block and each width costs and saves: time, from files with parts cut
       at random, and loss, from training samples after least squares,
    3. networks of less and less time, each made of the changes that together lose least,
    4. the fastest of them that should keep the budget once it is tuned. What is predicted is
       corrected by what came of each training, and the rest of the time trains the best one.

    Where that can't work (too little time, a network that can't be trained or has nothing to cut,
    times that don't add up, a small file as the goal), it goes on as `Quick` does, and says why.

    Source: X. Sun et al., "Multi-Dimensional Pruning: Joint Channel, Layer and Block Pruning with
    Latency Constraint", 2024 (blocks and widths in one integer program); T.-J. Yang et al.,
    "NetAdapt: Platform-Aware Neural Network Adaptation for Mobile Applications", 2018 (step by
    step). Times from whole files and losses after least squares are penjing's.
    """

    def propose(self, study: Study) -> Proposals:
        """See `penjing.search.study.Strategy`."""
        must = must_try(study)
        study.expect(must + 2 + TURNS, must)
        pace, rounding = look_ahead(study), Rounding(study)
        yield from try_unpruned(study, rounding)
        if pace is None or rounding.trial is None:
            return
        descent = Descent(study, rounding, pace)
        why = "the goal is a small file" if study.goal != "latency" else descent.prepare()
        if why:
            study.note(f"blocks and widths aren't searched together, because {why}", aloud=True)
            study.expect(study.rounds + 2 * len(CUTS), must)
            yield from Cutting(study, rounding, best_float_way(study), pace).run()
            return
        yield from descent.run()
