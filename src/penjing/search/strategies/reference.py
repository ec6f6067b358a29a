"""Reference: find the strategy that the user names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penjing.errors import InputError
from penjing.search.strategies.joint import Joint
from penjing.search.strategies.quick import Quick
from penjing.search.study import Proposals, Strategy, Study
from penjing.tasks.reference import guarded, named
from penjing.trials.trial import Proposal, Trial

STRATEGIES: Mapping[str, Callable[[], Strategy]] = {"joint": Joint, "quick": Quick}


def find_strategy(text: str) -> Strategy:
    """Find the strategy that `text` names.

    Args:
        text: `"joint"`, `"quick"`, a Python file with a `strategy` or a function `strategy()`, or
            `"package.module:name"`.

    Raises:
        InputError: nothing has that name, or the user's file raises; the message has the line.
    """
    if text in STRATEGIES:
        return STRATEGIES[text]()
    wanted = "an object with a method propose(study), or a function returning one"
    name, strategy = named(
        text, "strategy", wanted, "'joint', 'quick', a file such as mystrategy.py"
    )
    if callable(strategy) and not hasattr(strategy, "propose"):
        strategy = guarded(text, strategy)
    if isinstance(strategy, type) or not callable(getattr(strategy, "propose", None)):
        raise InputError(f"{name!r} in {text} is a {type(strategy).__name__}; wanted {wanted}")
    return _Own(text, strategy)


@dataclass(frozen=True)
class _Own:
    """A user's strategy. Whatever its code raises becomes one line that says where."""

    text: str
    strategy: Strategy

    def propose(self, study: Study) -> Proposals:
        """See `Strategy.propose`."""
        proposals = guarded(self.text, lambda: self.strategy.propose(study))
        trials: Sequence[Trial] | None = None
        while (wanted := self._next(proposals, trials)) is not None:
            trials = yield wanted

    def _next(self, proposals: Any, trials: Sequence[Trial] | None) -> Sequence[Proposal] | None:
        def ask() -> Any:
            try:
                return proposals.send(trials)
            except StopIteration:
                return None

        wanted = guarded(self.text, ask)
        if wanted is None:
            return None
        if not all(isinstance(proposal, Proposal) for proposal in wanted):
            raise InputError(f"{self.text}: propose yielded {wanted!r}; wanted a list of proposals")
        return list(wanted)
