"""Local: one evaluator, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from penjing.trials.contract import Evaluator, Watch
from penjing.trials.trial import Proposal, Trial


class Engine(Protocol):
    """Where evaluators run."""

    def run(self, proposals: Sequence[Proposal], watch: Watch) -> Iterator[Trial]:
        """Yield the trials of all proposals in order, each as soon as it is finished."""
        ...


@dataclass(frozen=True)
class Local:
    """Runs one evaluator in this process, one proposal after the other."""

    evaluator: Evaluator

    def run(self, proposals: Sequence[Proposal], watch: Watch) -> Iterator[Trial]:
        """See `Engine.run`."""
        for proposal in proposals:
            yield self.evaluator.evaluate(proposal, watch)
