"""The contract of an evaluator, which turns candidates into trials."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from penjing.contract import Json, Latency
from penjing.measure.scores import Scores
from penjing.network import Network
from penjing.tasks.task import Task
from penjing.trials.candidate import Candidate
from penjing.trials.judgement.promise import Promise
from penjing.trials.layers import Layers
from penjing.trials.trial import Proposal, Trial
from penjing.tune.options import TuneOptions

MEASURING = "measuring the original"
"""The first stage of a fit."""
LEAST_EPOCHS, LEAST_STEPS = 0.5, 100  # the shorter of both; a cut needs as much training


@dataclass(frozen=True)
class Pace:
    """How fast a network trains here: seconds a step, and steps an epoch."""

    step: float
    steps: int

    @property
    def epoch(self) -> float:
        """Seconds of an epoch; never zero, so that one can divide by it."""
        return max(self.step * self.steps, 1e-9)

    @property
    def least(self) -> float:
        """Seconds of the shortest training that makes a cut worthwhile."""
        return self.step * min(LEAST_EPOCHS * self.steps, LEAST_STEPS)


class StoppedError(Exception):
    """What a `Watch` raises to end an evaluation that is no longer needed."""


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

    def scoring(self, stage: str, samples: float, share: float = 0.0) -> Callable[[int], None]:
        """What is to be called while a file is scored, with the number of samples so far.

        Args:
            stage: what is being done.
            samples: how many there are; infinite if that isn't known.
            share: how much of this step is done.

        >>> Watch(print).scoring("int8", 5000, 0.7)(640)
        int8: 640 of 5,000 samples scored 0.7
        """
        of_all = f" of {samples:,.0f}" if math.isfinite(samples) else ""

        def told(done: int) -> None:
            self.check()
            self.say(f"{stage}: {done:,}{of_all} samples scored", share)

        return told


@dataclass(frozen=True)
class Probed:
    """A file of which only what a goal may count was measured.

    Attributes:
        shares: what it takes of the original's, by figure: `"size"`, and `"latency"` where it was
            timed. See `penjing.trials.judgement.goal.FIGURES`.
    """

    shares: Mapping[str, float]


@dataclass(frozen=True)
class Sitting:
    """Files that were timed side by side.

    Attributes:
        times: by the candidate's key.
        refused: by the candidate's key, why a device couldn't load or run its file.
    """

    times: Mapping[str, Latency] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


class Evaluator(Protocol):
    """Makes candidates into files and measures the files, here or on a device.

    Between candidates it keeps nothing but caches. An exception that passes and runtimes are
    documented to raise makes a failed trial; any other one is a bug and ends the run.
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
        """How many times longer than planned a sitting took, at worst."""
        ...

    def testing_seconds(self) -> float:
        """About how long it takes to test the original and as many candidates as may be tested."""
        ...

    def baseline(self, watch: Watch) -> Trial:
        """Make and measure the original.

        Raises:
            PenjingError: that failed.
        """
        ...

    def original_scores(self) -> Scores:
        """What the metric says of the original on the validation data."""
        ...

    def settle(self, max_drop: float) -> Promise:
        """Decide which data certifies that a file keeps the budget, and judge trials by it from now
        on."""
        ...

    def hold_to(self, promise: Promise) -> None:
        """Judge trials by a promise that an earlier run settled."""
        ...

    def evaluate(self, proposal: Proposal, watch: Watch) -> Trial:
        """A candidate's trial: its file with all figures, or the file alone if only its speed is
        wanted, which `time` measures."""
        ...

    def has(self, trial: Trial) -> bool:
        """Whether the trial's file is still the one that was measured."""
        ...

    def time(self, trials: Sequence[Trial], seconds: float) -> Sitting:
        """Latencies of trials that have a file, in the same windows as the original's. They are
        measured once more if other programs disturbed them."""
        ...

    def compare(self, trial: Trial, rival: Trial) -> Latency:
        """The latency of a file beside another one, whose time is 1."""
        ...

    def slower_layers(self, trial: Trial, rival: Trial) -> list[str] | None:
        """The layers that a file computes more slowly than another one does; None if nothing can
        time layers."""
        ...

    def sensitive_layers(self, trial: Trial) -> list[str]:
        """The layers of a quantized trial whose rounding loses most, the worst first."""
        ...

    def layers(self, trial: Trial, original: Trial) -> Layers:
        """What became of each layer of the original, and what time it takes in either file. What
        can't be learnt is said in a note."""
        ...

    def profiler(self, trial: Trial) -> str:
        """The name of what would have to time a file's layers."""
        ...

    def probe(
        self, candidates: Sequence[Candidate], watch: Watch, timed: bool = True
    ) -> list[Probed]:
        """What the files of candidates take of the original's. Their accuracy isn't measured, and
        they aren't kept.

        Args:
            candidates: what is made into files.
            watch: told which file comes next.
            timed: whether times are wanted.

        Raises:
            InputError: the runtime can't take one of the networks.
        """
        ...

    def made(self, recipe: Sequence[Json], watch: Watch) -> Network:
        """The network that a recipe makes.

        Raises:
            PenjingError: a pass can't be applied.
        """
        ...

    @property
    def blind(self) -> Task:
        """The task without the data on which candidates are judged."""
        ...

    def changes(self, recipe: Sequence[Json], watch: Watch) -> bool:
        """Whether the recipe's last pass has anything to do."""
        ...

    def pace(self, recipe: Sequence[Json], training: TuneOptions, watch: Watch) -> Pace:
        """How fast the network that a recipe makes trains, measured on a few real steps."""
        ...

    def is_trained(self, recipe: Sequence[Json]) -> bool:
        """Whether the network that this recipe makes was trained and saved before."""
        ...

    def epochs_trained(self, recipe: Sequence[Json], watch: Watch) -> float:
        """For how many epochs the last pass of a recipe trained; fewer than planned if its time was
        over."""
        ...

    def test(self, trial: Trial, stage: str, watch: Watch) -> Scores:
        """What the metric says of a trial's file on the test data.

        Args:
            stage: what to call this while it lasts.
        """
        ...

    def notes(self, trial: Trial) -> tuple[str, ...]:
        """What users should know about the place where the trial was measured."""
        ...
