"""The contract of an evaluator: what turns candidates into trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from penjing.contract import Array, Json, Latency
from penjing.trials.judgement.promise import Promise
from penjing.trials.trial import Proposal, Trial
from penjing.tune.options import TuneOptions

LEAST_EPOCHS, LEAST_STEPS = 0.5, 100  # the shorter of both; less training isn't worth a cut


@dataclass(frozen=True)
class Pace:
    """How fast a network trains here: seconds a step, and steps an epoch."""

    step: float
    steps: int

    @property
    def epoch(self) -> float:
        """Seconds; never quite nothing, so that it divides."""
        return max(self.step * self.steps, 1e-9)

    @property
    def least(self) -> float:
        """Seconds of the shortest training that is worth its cut."""
        return self.step * min(LEAST_EPOCHS * self.steps, LEAST_STEPS)


class StoppedError(Exception):
    """What a `Watch` raises to end an evaluation that nobody waits for any more."""


class Say(Protocol):
    """Shows people what is being done."""

    def __call__(self, line: str, share: float = 0.0, /) -> None:
        """Show a line; `share`, 0 to 1, is how much of this step is done."""
        ...


@dataclass(frozen=True)
class Watch:
    """What an evaluator reports to while it evaluates a candidate.

    Attributes:
        say: called often with a line for people; it raises KeyboardInterrupt to end the run.
        check: called often while a candidate is scored; raises StoppedError to end that.
    """

    say: Say = lambda *_: None
    check: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Sitting:
    """Files that were timed side by side.

    Attributes:
        times: by the candidate's key.
        refused: why a device couldn't load or run a file, by the candidate's key.
    """

    times: Mapping[str, Latency] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


class Evaluator(Protocol):
    """Makes candidates into files and measures these; the same here and elsewhere.

    It holds nothing between candidates but caches. What passes and runtimes are documented to raise
    is a failed trial; anything else is a bug and ends the run.
    """

    @property
    def timing_seconds(self) -> float:
        """About how long it takes to time a candidate beside the original."""
        ...

    @property
    def scoring_seconds(self) -> float:
        """How long the original took on the validation data."""
        ...

    @property
    def travel_seconds(self) -> float:
        """How long a file takes to a device."""
        ...

    @property
    def stretch(self) -> float:
        """How many times longer than it was meant to a sitting took, at worst."""
        ...

    def testing_seconds(self) -> float:
        """About how long it takes to test the original and as many candidates as may be tested."""
        ...

    def baseline(self, watch: Watch) -> Trial:
        """The original, made and measured.

        Raises:
            PenjingError: it can't be.
        """
        ...

    def original_scores(self) -> Array:
        """The original's score on every validation sample."""
        ...

    def settle(self, max_drop: float) -> Promise:
        """What certifies that a file keeps the budget; trials are judged by it from now on."""
        ...

    def hold_to(self, promise: Promise) -> None:
        """Judge trials by a promise that was settled before."""
        ...

    def evaluate(self, proposal: Proposal, watch: Watch) -> Trial:
        """A candidate's trial: its file and all figures of it, or the file alone if only its speed
        is wanted, which `time` tells."""
        ...

    def has(self, trial: Trial) -> bool:
        """Whether the trial's file lies there as it was measured."""
        ...

    def time(self, trials: Sequence[Trial], seconds: float) -> Sitting:
        """Latencies of trials that have a file, in the same windows as the original's; taken once
        more if other load disturbed them."""
        ...

    def compare(self, trial: Trial, rival: Trial) -> Latency:
        """The latency of a file beside another one, whose time is 1."""
        ...

    def slower_layers(self, trial: Trial, rival: Trial) -> list[str] | None:
        """The layers that a file computes more slowly than another one does; None if that can't be
        told."""
        ...

    def profiler(self, trial: Trial) -> str:
        """Who would have to tell what a file's layers take."""
        ...

    def changes(self, recipe: Sequence[Json], watch: Watch) -> bool:
        """Whether the recipe's last pass finds anything to do."""
        ...

    def pace(self, recipe: Sequence[Json], training: TuneOptions, watch: Watch) -> Pace:
        """How fast the network that a recipe makes trains in that way, by a few real steps."""
        ...

    def is_trained(self, recipe: Sequence[Json]) -> bool:
        """Whether a network that this recipe makes is there already, trained."""
        ...

    def test(self, trial: Trial) -> Array:
        """The score of a trial's file on every sample of the test data."""
        ...

    def notes(self, trial: Trial) -> tuple[str, ...]:
        """What to know of where the trial was measured."""
        ...
