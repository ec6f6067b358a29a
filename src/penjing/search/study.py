"""Study: what a strategy sees of a fit, and what it can ask for."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from penjing.errors import PenjingError, in_one_line
from penjing.passes import Pass, Tune
from penjing.search.predict.known import Known
from penjing.search.schedule import Schedule
from penjing.search.ways import Way, Ways
from penjing.targets import Target
from penjing.trials.candidate import Candidate
from penjing.trials.contract import Evaluator, Pace, Watch
from penjing.trials.evaluation.timing import LATENCY_SECONDS
from penjing.trials.ledger import Ledger
from penjing.trials.recipe import to_json
from penjing.trials.result import Result
from penjing.trials.trial import Extent, Proposal, Status, Trial
from penjing.tune.options import TuneOptions

MOST_EPOCHS = 20.0
"""The longest that a network is trained at once."""

Proposals = Generator[Sequence[Proposal], Sequence[Trial], None]
"""Yields what to try next, and receives the trials of it in the same order."""


class Strategy(Protocol):
    """Proposes candidates from the trials so far.

    It measures nothing itself, and its only clock is the study's schedule. A resumed fit starts the
    strategy from the beginning; proposals that were tried before are answered from the ledger.
    """

    def propose(self, study: Study) -> Proposals:
        """Propose candidates, a few at a time; the fit ends when there are no more."""
        ...


@dataclass
class Study:
    """One fit, as a strategy sees it.

    Attributes:
        ways: the runtimes and precisions in which files can be made.
        goal: what to make small, see `penjing.trials.judgement.goal.weights_of`.
        max_drop: the budget in the metric's unit.
        training: how networks are trained; each training sets its own length.
        watch: receives the progress; raises KeyboardInterrupt to end the run.
        known: what earlier fits have learnt on this machine.
        recipes: of the user's, by name; they are tried before anything is pruned.
        rounds: about how many times the strategy will propose, as it expects.
        must: how many of these rounds are taken however little time there is.
    """

    target: Target
    ways: Ways
    schedule: Schedule
    training: TuneOptions
    ledger: Ledger
    evaluator: Evaluator
    watch: Watch = field(default_factory=Watch)
    known: Known = field(default_factory=lambda: Known(None))
    recipes: Mapping[str, Sequence[Pass]] = field(default_factory=dict)
    rounds: int = 8
    must: int = 0

    @property
    def result(self) -> Result:
        """All trials so far, judged, and the best of them."""
        return self.ledger.result

    @property
    def goal(self) -> str:
        """What to make small, see `penjing.trials.judgement.goal.weights_of`."""
        return self.result.goal

    @property
    def max_drop(self) -> float:
        """The budget in the metric's unit."""
        return self.result.max_drop

    def proposal(
        self, title: str, *passes: Pass, way: Way | None = None, must: bool = False
    ) -> Proposal:
        """A candidate that these passes make in a way, by default the usual one."""
        way = way or self.ways.usual
        return Proposal(way.candidate(*passes), self.ways.title(title, way), must=must)

    def original(self, way: Way | None = None) -> Trial | None:
        """The original's trial in a way; None if it failed or was not tried."""
        trial = self.ledger.trial((way or self.ways.usual).candidate().key)
        return None if trial is None or trial.status == Status.FAILED else trial

    def expect(self, rounds: int, must: int = 0) -> None:
        """Say about how many times the strategy will propose, for the progress that is shown.

        Args:
            rounds: in all.
            must: of these, the first ones, which are taken however little time there is.
        """
        self.rounds, self.must = rounds, must

    def say(self, text: str) -> None:
        """Show what the fit is doing."""
        self.watch.say(text)

    def note(self, text: str, aloud: bool = False) -> None:
        """Add a line that the user should read; `aloud` also shows it at once."""
        self.ledger.note(text)
        if aloud:
            self.say(text)

    def remark(self, trial: Trial, reason: str) -> None:
        """Change the reason why a trial ended as it did."""
        self.ledger.amend(trial, reason=reason)

    def leave_out(self, proposal: Proposal, reason: str, status: Status = Status.NOT_TRIED) -> None:
        """Record that a candidate is not tried, and why."""
        self.ledger.record(Trial(proposal.candidate, proposal.title, status, reason))

    def affords(self, seconds: float, share: float = 1.0) -> bool:
        """Whether something that takes so long is less than that share of the time left."""
        return self.schedule.affords(seconds, share)

    def pace(self, *passes: Pass) -> Pace:
        """How fast the network that these passes make trains, measured on a few real steps.

        Raises:
            PenjingError: it can't be trained.
        """
        return self.evaluator.pace(to_json(passes), self.training, self.watch)

    def length_of(self, seconds: float, *passes: Pass) -> tuple[float, float | None]:
        """How long to train the network that these passes make, if it may take so many seconds.

        Returns:
            The number of epochs, which follows from the network's own measured pace, and after how
            many seconds the training has to end. If each training's length is given instead, that,
            and None.

        Raises:
            PenjingError: it can't be trained.
        """
        if self.schedule.epochs is not None:
            return self.schedule.epochs, None
        begin = self.schedule.spent()
        pace = self.pace(*passes)
        limit = max(seconds - (self.schedule.spent() - begin), pace.step)
        epochs = min(MOST_EPOCHS, max(limit / pace.epoch, 1 / pace.steps))
        return round(epochs, 2) or epochs, limit

    def length_if_any(
        self, seconds: float, what: object, *passes: Pass
    ) -> tuple[float, float | None] | None:
        """The same; None, with a note, if the network can't be trained.

        Args:
            seconds, passes: see `length_of`.
            what: what the note calls the network.
        """
        try:
            return self.length_of(seconds, *passes)
        except PenjingError as error:
            self.note(f"{what}: it can't be trained: {in_one_line(error)}")
            return None

    def tuning(self, epochs: float) -> Tune:
        """Training for so many epochs, after a cut whose layers and batch norms `Compensate` has
        adjusted."""
        return Tune(replace(self.training, epochs=epochs), recalibration_samples=0)

    def was_tried(self, candidate: Candidate) -> bool:
        """Whether a candidate was made before, or failed."""
        trial = self.ledger.trial(candidate.key)
        return trial is not None and trial.status not in (Status.NOT_TRIED, Status.NOT_TUNED)

    def is_trained(self, *passes: Pass) -> bool:
        """Whether the network that these passes make was trained and saved before."""
        return self.evaluator.is_trained(to_json(passes))

    def epochs_trained(self, *passes: Pass) -> float:
        """For how many epochs the last of these passes trained; fewer than planned if its time was
        over."""
        return self.evaluator.epochs_trained(to_json(passes), self.watch)

    def changes(self, *passes: Pass) -> bool:
        """Whether the last of these passes has anything to do."""
        return self.evaluator.changes(to_json(passes), self.watch)

    def time_again(self) -> None:
        """Time all candidates whose timing is unreliable once more, in one sitting."""
        every = [(trial, trial.latency) for trial in self.result.trials]
        disturbed = [trial for trial, times in every if times is not None and times.disturbed]
        if disturbed and self.schedule.left() > 0:
            self.say("timing again what other programs disturbed")
            self.ledger.set_latencies(self.evaluator.time(disturbed, 2 * LATENCY_SECONDS).times)

    def only_speed(self, proposal: Proposal) -> Proposal:
        """The proposal, of which only the speed is wanted."""
        return replace(proposal, extent=Extent.SPEED)
