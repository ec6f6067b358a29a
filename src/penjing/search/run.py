"""Run: one fit, from the original's measurement to the delivered answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from penjing.engines.local import Engine, Local
from penjing.measure.scores import Scores
from penjing.search.options import FitOptions
from penjing.search.preflight import require_better_than_chance
from penjing.search.progress import Progress
from penjing.search.schedule import NoTimeError, Schedule
from penjing.search.study import Study
from penjing.tasks.task import Batches
from penjing.trials.contract import MEASURING, Evaluator, Sitting, Watch
from penjing.trials.evaluation.timing import LATENCY_SECONDS
from penjing.trials.judgement.certify import prove
from penjing.trials.judgement.comparison import DISTURBED, is_disturbed, told
from penjing.trials.judgement.next_faster import next_faster
from penjing.trials.judgement.promise import MOST_TEST_EVALUATIONS
from penjing.trials.judgement.wording import ratio, size_beside
from penjing.trials.ledger import Ledger
from penjing.trials.result import Result
from penjing.trials.trial import Extent, Proposal, Status, Trial

OFTEN_DISTURBED = 1.5  # times what timing was meant to take; then the last sitting takes two
SPARE_SHARE = 0.02  # of all time, for what takes longer than planned
TOO_LATE = "the time was over before it was measured"


@dataclass
class Run:
    """A fit, step by step: measure the original, try what the strategy proposes, time all that keep
    the budget side by side, and use the test data at the end.

    Every step leaves its trials in the ledger. What the ledger holds already, from a run that was
    interrupted, isn't done again.

    Attributes:
        check: raises KeyboardInterrupt once the run should end.
    """

    study: Study
    options: FitOptions
    validation: Batches
    check: Callable[[], None]
    engine: Engine = field(init=False)
    progress: Progress = field(init=False)
    _finished: float = 0.0  # rounds; the part of one is of the proposals that it holds
    _part: float = 1.0  # of a round, that the current step is
    _steps: int | None = None  # at the end; None before that

    def __post_init__(self) -> None:
        self.engine = Local(self.evaluator)
        self.progress = Progress(self.schedule)
        self.study.watch = Watch(self._say)

    @property
    def ledger(self) -> Ledger:
        """The fit's ledger."""
        return self.study.ledger

    @property
    def evaluator(self) -> Evaluator:
        """The fit's evaluator."""
        return self.study.evaluator

    @property
    def schedule(self) -> Schedule:
        """The fit's schedule."""
        return self.study.schedule

    @property
    def result(self) -> Result:
        """What the ledger amounts to."""
        return self.ledger.result

    def run(self) -> None:
        """All steps; an interrupt leaves what is finished."""
        self._measure_original()
        try:
            self._try_all()
            self._time_side_by_side()
            self._prove_on_test()
        except KeyboardInterrupt:
            if not self.result.finished:  # else it is too late to change what the test data said
                self.ledger.interrupted()
                self.ledger.deliver()

    def _say(self, stage: str, within: float = 0.0) -> None:
        """Show what the fit is doing, and how much of this step is done."""
        self.check()
        self.schedule.enter(stage.partition(":")[0])
        if self._steps is None:
            finished, study = self._finished + within * self._part, self.study
            share = self.progress.in_search(finished, 1 + study.rounds, 1 + study.must)
        else:
            self._steps += 1
            share = self.progress.at_end(self._steps, 3 + MOST_TEST_EVALUATIONS)
        self.options.progress(stage, share, self.result)

    def _tell(self, stage: str, within: float = 0.0) -> None:
        """Show how far a step at the end is."""
        self.check()
        self.options.progress(stage, self.progress.done, self.result)

    def _measure_original(self) -> None:
        self._say(MEASURING)
        known = self.ledger.trial(self.result.baseline.key)
        if known is None or not self.evaluator.has(known):
            trial = self.evaluator.baseline(self.study.watch)
            require_better_than_chance(
                trial.measurement.metric, self.evaluator.original_scores(), self.validation
            )
            self.ledger.record(trial)
            self.ledger.publish()
        if self.schedule.epochs is None:
            self.schedule.ending = self._ending
        if (promise := self.ledger.promised) is not None:
            self.evaluator.hold_to(promise)
            return
        promise = self.evaluator.settle(self.result.max_drop)
        self.ledger.promise(promise)
        if promise.note:
            self._say(promise.note, 1.0)

    def _ending(self) -> float:
        """Seconds that the last comparison and the test will take, with some to spare."""
        sittings = 2 if self.evaluator.stretch > OFTEN_DISTURBED else 1
        timing = 2 * sittings * self.evaluator.timing_seconds
        return timing + self.evaluator.testing_seconds() + SPARE_SHARE * self.schedule.seconds

    def _try_all(self) -> None:
        """Try what the strategy proposes, until it has no more."""
        proposals, self._finished = self.options.strategy.propose(self.study), 1
        try:
            wanted = next(proposals)
            while True:
                wanted = proposals.send(self._trials(wanted))
        except StopIteration:
            return

    def _trials(self, wanted: Sequence[Proposal]) -> list[Trial]:
        """The trials of these proposals: measured now, or found in the ledger."""
        before, self._part = self._finished, 1 / max(1, len(wanted))
        for number, proposal in enumerate(wanted):
            self._finished = before + number * self._part
            if not self._is_known(proposal):
                self._evaluate(proposal)
        self._time([proposal for proposal in wanted if proposal.extent == Extent.SPEED])
        self.ledger.publish()
        self._finished, self._part = before + 1, 0.0
        return [self._recorded(proposal) for proposal in wanted]

    def _recorded(self, proposal: Proposal) -> Trial:
        trial = self.ledger.trial(proposal.key)
        assert trial is not None
        return trial

    def _is_known(self, proposal: Proposal) -> bool:
        """Whether all that is wanted of it was found, and its file is there."""
        trial = self.ledger.trial(proposal.key)
        if trial is None or trial.status == Status.NOT_TRIED:
            return False
        if trial.status == Status.FAILED:
            return True
        is_done = trial.drop is not None or proposal.extent == Extent.SPEED
        return is_done and self.evaluator.has(trial)

    def _evaluate(self, proposal: Proposal) -> None:
        check = (lambda: None) if proposal.must else self.schedule.require_time
        self.ledger.propose(proposal.candidate)
        try:
            for trial in self.engine.run([proposal], Watch(self._say, check)):
                self.ledger.record(trial)
        except NoTimeError:
            late = Trial(proposal.candidate, proposal.title, Status.NOT_TRIED, TOO_LATE)
            self.ledger.record(replace(late, replaces=proposal.replaces))

    def _time(self, proposals: Sequence[Proposal]) -> None:
        """Time files of which nothing else is wanted, beside what may be the answer already."""
        made = [self._recorded(proposal) for proposal in proposals]
        made = [trial for trial in made if trial.status == Status.NOT_TUNED and not trial.latency]
        if not made:
            return
        self._say("timing the pruned files", 1.0)
        answer = self.result.answer
        best = [] if answer.key == self.result.baseline.key else [answer]
        self._take(self.evaluator.time([*best, *made], 2 * LATENCY_SECONDS))

    def _take(self, sitting: Sitting) -> None:
        self.ledger.set_latencies(sitting.times)
        for key, why in sitting.refused.items():
            trial = self.ledger.trial(key)
            assert trial is not None
            self.ledger.amend(trial, Status.FAILED, why)

    def _time_side_by_side(self) -> None:
        """Time everything that keeps the budget in one sitting, which decides."""
        self._steps = 0
        kept = [trial for trial in self.result.trials if trial.status == Status.KEPT]
        if not kept:
            return
        self._say("timing all files that keep the budget side by side")
        self._take(self.evaluator.time(kept, 2 * LATENCY_SECONDS))

    def _prove_on_test(self) -> None:
        """Use the test data, once, at the end. The ledger hears of it after the last evaluation:
        an interrupted fit has learnt nothing from them, and one that is resumed tests again."""

        def score(trial: Trial) -> Scores:
            is_original = trial.key == self.result.baseline.key
            name = f"the {trial.title}" if is_original else trial.title
            stage = f"evaluating {name} on the test data"
            self._say(stage)
            return self.evaluator.test(trial, stage, Watch(self._tell))

        result = prove(_explained(self.result), score)
        late = self.schedule.overrun()
        there = self.evaluator.notes(result.answer)
        notes = (*result.notes, *next_faster(result), *([late] if late else []), *there)
        self.ledger.finish(replace(result, notes=notes))
        self._describe_layers()
        self.options.progress("done", 1.0, self.result)

    def _describe_layers(self) -> None:
        """Say what became of each layer. The answer is delivered by now, whatever happens here."""
        self._say("timing the layers of the answer")
        result = self.result
        self.ledger.describe(self.evaluator.layers(result.answer, result.baseline))


def _explained(result: Result) -> Result:
    """The result, with how each candidate that keeps the budget compares with the best one."""
    best = result.answer

    def explained(trial: Trial) -> Trial:
        if trial.status != Status.KEPT or trial.key == best.key:
            return trial
        beyond = result.aim.exceeded(trial)
        parts = (trial.reason, beyond and f"it {beyond}", _beside(trial, best, result.goal))
        return replace(trial, reason="; ".join(filter(None, parts)))

    return replace(result, trials=tuple(map(explained, result.trials)))


def _beside(trial: Trial, best: Trial, goal: str) -> str:
    """How a trial compares with the best one; empty if nothing can be said."""
    mine, theirs = trial.measurement, best.measurement
    if mine.latency is not None and is_disturbed(mine.latency):
        return DISTURBED
    if goal == "latency" and mine.latency is not None and theirs.latency is not None:
        return told(mine.latency, theirs.latency, best.title)
    if goal == "memory" and mine.peak_activation_bytes and theirs.peak_activation_bytes:
        share = ratio(mine.peak_activation_bytes / theirs.peak_activation_bytes)
        return f"needs {share} of the memory of {best.title}"
    if mine.file_bytes and theirs.file_bytes:
        size = size_beside(mine.file_bytes / theirs.file_bytes)
        return f"{size}, compared with {best.title}"
    return ""
