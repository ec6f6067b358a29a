"""Joint: search blocks, widths and ranks together, by what they cost in the file that ships."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penjing.errors import InputError
from penjing.search.predict.parts import EVERY, Cuts
from penjing.search.strategies.beginning import begun
from penjing.search.strategies.descent import TURNS, Descent
from penjing.search.strategies.quick import ROUNDS, cut, refined
from penjing.search.strategies.route import Route
from penjing.search.strategies.survey import Survey
from penjing.search.strategies.ternary import Ternary
from penjing.search.study import Proposals, Study
from penjing.trials.contract import Pace
from penjing.trials.judgement.goal import weights_of
from penjing.trials.judgement.wording import listed


@dataclass(frozen=True)
class Joint:
    """The default strategy.

    It tries, in this order:

    1. the original and int8 in every runtime and precision, other quantization schemes where int8
       loses too much accuracy, fewer bits by layer where a small file is wanted, and slow layers
       in float, as `Quick` does; the best way by the goal in which the uncut network keeps the
       budget is the one in which the search goes on,
    2. weights of three values, trained so, where a small file is wanted and theirs would be the
       smallest (`Ternary`),
    3. no files, but what each block, width and rank costs and saves: time or bytes, from files with
       parts cut at random, and loss, from training samples after least squares,
    4. networks that cost less and less, each made of the changes that together lose least,
    5. the cheapest of them that should keep the budget once it is tuned, each cut from the one that
       was tuned before. What is predicted is corrected by what came of each training.

    Where that can't work (too little time, a network that can't be trained or has nothing to cut,
    a figure that is no sum over parts, as memory is), it goes on as `Quick` does, and says why.

    Source: X. Sun et al., "Multi-Dimensional Pruning: Joint Channel, Layer and Block Pruning with
    Latency Constraint", 2024 (blocks and widths in one integer program); T.-J. Yang et al.,
    "NetAdapt: Platform-Aware Neural Network Adaptation for Mobile Applications", 2018 (step by
    step). Times from whole files and losses after least squares are penjing's.

    Attributes:
        cuts: what may be cut: `"blocks"`, `"widths"`, `"ranks"`, or several of these.
    """

    cuts: Sequence[Cuts] = EVERY

    def __post_init__(self) -> None:
        object.__setattr__(self, "cuts", tuple(self.cuts))
        unknown = [kind for kind in self.cuts if kind not in EVERY]
        if unknown or not self.cuts:
            raise InputError(f"cuts must be some of {listed(EVERY)}; found {self.cuts!r}")

    def propose(self, study: Study) -> Proposals:
        """See `penjing.search.study.Strategy`."""
        pace, rounding = yield from begun(study, TURNS)
        yield from refined(study, rounding)
        if pace is not None:
            yield from Ternary(study, pace).run()
        route = Route.of(study, rounding)
        survey = None if route is None else Survey(study, route, self.cuts)
        why = _impossible(study, pace, survey)
        if not why:
            assert pace is not None
            assert survey is not None
            yield from Descent(study, survey, pace).run()
            return
        if pace is not None:  # else that was said
            study.note(f"{listed(self.cuts)} aren't searched together, because {why}", aloud=True)
        study.expect(study.rounds + ROUNDS, study.must)
        yield from cut(study, rounding, pace)


def _impossible(study: Study, pace: Pace | None, survey: Survey | None) -> str:
    """Why parts can't be searched together; empty if they can."""
    if pace is None or survey is None:
        return "the network can't be trained, or has no file that was measured"
    if "memory" in weights_of(study.goal):
        return "memory is no sum over the parts of a network"
    return survey.run()
