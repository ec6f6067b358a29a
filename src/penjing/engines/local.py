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
        """The trials of all proposals, in their order, each as soon as it is there."""
        ...


@dataclass(frozen=True)
class Local:
    """One after the other, in this process."""

    evaluator: Evaluator

    def run(self, proposals: Sequence[Proposal], watch: Watch) -> Iterator[Trial]:
        """See `Engine.run`."""
        for proposal in proposals:
            yield self.evaluator.evaluate(proposal, watch)
