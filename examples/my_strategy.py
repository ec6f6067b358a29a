"""Write your own search. Run `penjing fit digits --strategy examples/my_strategy.py`.

A strategy proposes a few candidates at a time. For each it receives a trial, which has the figures
that were measured on the candidate's file. penjing makes, measures, judges and records whatever the
strategy proposes, so the strategy needs no clock, runtime or file. This one finds the fewest bits
for the weights by bisection.
"""

from penjing.passes import Gptq, Quantize
from penjing.search.study import Proposals, Study
from penjing.trials.trial import Status


class FewestBits:
    """Find the fewest bits, between 2 and 8, with which the network keeps the budget."""

    def propose(self, study: Study) -> Proposals:
        """Yield lists of proposals. Each yield returns the list of their trials."""
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
    """The function that `--strategy` calls in a file."""
    return FewestBits()
