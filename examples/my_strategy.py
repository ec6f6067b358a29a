"""A search of your own: `penjing fit digits --strategy examples/my_strategy.py`.

A strategy proposes candidates, a few at a time, and is sent the trial of each: what its file
measured. It needs no clock, no runtime and no file; whatever it proposes is made, measured, judged
and recorded as everything else is. This one looks for the fewest bits, by bisection.
"""

from penjing.passes import Gptq, Quantize
from penjing.search.study import Proposals, Study
from penjing.trials.trial import Status


class FewestBits:
    """Bisects between 2 and 8 bits for the fewest in which the weights keep the budget."""

    def propose(self, study: Study) -> Proposals:
        """Yield lists of proposals; what comes back is the list of their trials."""
        fewest, most = 2, 8
        while fewest <= most:
            bits = (fewest + most) // 2
            (trial,) = yield [
                study.proposal(f"{bits} bits", Quantize(weights=bits), Gptq(), must=True)
            ]
            if trial.status == Status.KEPT:
                most = bits - 1
            else:
                fewest = bits + 1


def strategy() -> FewestBits:
    """What `--strategy` looks for in a file."""
    return FewestBits()
