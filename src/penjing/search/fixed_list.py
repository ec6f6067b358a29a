"""FixedList: the search of this release. A fixed list of recipes, tried in the order of promise."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from penjing.contract import Array
from penjing.errors import PenjingError, in_one_line
from penjing.network import Network
from penjing.search import recipes
from penjing.search.attempts import Attempts
from penjing.search.comparison import DISTURBED, is_disturbed, told
from penjing.search.cutting import NO_TIME, Cutting
from penjing.search.elsewhere import Elsewhere, Way
from penjing.search.ledger import Ledger
from penjing.search.looks import prove
from penjing.search.preflight import require_better_than_chance
from penjing.search.result import Candidate, Result, choose
from penjing.search.rungs import Rungs
from penjing.search.schedule import Schedule
from penjing.search.training import Pace, Training
from penjing.search.workshop import BASELINE, LATENCY_SECONDS, Workshop
from penjing.targets import Target

Progress = Callable[[str, float, str], None]
"""Called with the stage, the share done (0..1) and the best candidate so far."""
OFTEN_DISTURBED = 1.5  # times what timing was meant to take; then the last one is taken twice
SPARE_SHARE = 0.02  # of all time, for what takes longer than planned
FLOAT_SHARE = 0.15  # of the time left, at most, for layers left in float
FEWER_BITS_SHARE = 0.08  # of the time left, at most, for each step to fewer bits


@dataclass
class FixedList:
    """One fit, step by step: the original and int8 in every way, other rungs where int8 loses too
    much, then three widths, each with and without the chosen quantization.

    Every step leaves its candidates in the ledger. The first two are never left out, however little
    time there is. A width is timed before it is tuned, because speed doesn't depend on the weights;
    it is cut only if there is time to tune it, and tuned only if it can win. `check` raises
    KeyboardInterrupt once the run should end.
    """

    ledger: Ledger
    workshop: Workshop
    target: Target
    original: Network
    schedule: Schedule
    progress: Progress
    check: Callable[[], None]
    step: int = 0
    pace: Pace | None = None
    quantized: dict[str, Network] = field(default_factory=dict)
    elsewhere: Elsewhere = field(init=False)
    attempts: Attempts = field(init=False)
    training: Training = field(init=False)
    rungs: Rungs = field(init=False)

    def __post_init__(self) -> None:
        self.elsewhere = Elsewhere.on(self.target, self.workshop.runtime)
        self.attempts = Attempts(
            self.ledger, self.workshop, self.target, self.elsewhere, self.schedule, self._say
        )
        self.training = Training(
            self.workshop, self.schedule, self.original, self.result.seed, self._say
        )
        self.rungs = Rungs(self.elsewhere, self.ledger)

    @property
    def result(self) -> Result:
        """What the ledger holds."""
        return self.ledger.result

    def run(self) -> None:
        """All steps; an interrupt leaves what is finished."""
        self._measure_original()
        try:
            for step in self._steps():
                self.step += 1
                step()
        except KeyboardInterrupt:
            if self.result.finished:  # too late to change what the test data said
                self.ledger.finish(self.result)
                return
            waiting = [one for one in self.result.candidates if one.reason == NO_TIME]
            self.ledger.record(*(replace(one, reason="interrupted before it") for one in waiting))
            self.ledger.note(
                "interrupted: what was finished by then is measured, the test data decided "
                "nothing; `resume` goes on"
            )
            self.ledger.deliver()

    def _steps(self) -> tuple[Callable[[], None], ...]:
        """What follows once the original is measured."""
        return (
            self._look_ahead,
            self._try_every_way,
            self._climb,
            self._refine,
            self._cut,
            self._time_side_by_side,
            self._prove_on_test,
        )

    def _say(self, stage: str) -> None:
        self.check()
        self.schedule.enter(stage.partition(":")[0])
        share = self.schedule.share(self.step, 1 + len(self._steps()))
        self.progress(stage, share, self.result.chosen)

    def _measure_original(self) -> None:
        self._say("measuring the original")
        self.attempts.enter(BASELINE, self.elsewhere.usual, ())
        self.attempts.networks[BASELINE] = self.original
        begin = self.schedule.spent()
        self.workshop.make(BASELINE, self.original)
        measured = self.workshop.measure(BASELINE, self.original)
        require_better_than_chance(
            self.workshop.task.metric.name,
            self.workshop.scores[BASELINE],
            self.workshop.validation,
        )
        took = self.schedule.spent() - begin
        baseline = self.attempts.candidate(BASELINE, "baseline")
        self.ledger.record(self.attempts.measured(baseline, measured, took))
        if self.schedule.epochs is None:
            self.schedule.ending = self._ending
        made = self.workshop.settle(self.result.max_drop)
        self.ledger.promise(made)
        if made.note:
            self._say(made.note)

    def _ending(self) -> float:
        """Seconds that the last comparison and the test will take, and some to spare."""
        sittings = 2 if self.workshop.stretch > OFTEN_DISTURBED else 1
        spare = SPARE_SHARE * self.schedule.seconds
        return 2 * sittings * self.workshop.timing_seconds + self.workshop.testing_seconds() + spare

    def _look_ahead(self) -> None:
        """Find out how fast the network trains, and say what the time allows."""
        self._say("timing a few steps of training")
        try:
            self.pace = self.training.pace(self.original)
        except PenjingError as error:  # what needs no training goes on
            self.ledger.note(f"nothing can be tuned, so nothing is cut: {in_one_line(error)}")
            return
        if self.schedule.epochs is not None:
            return
        files = len(self.elsewhere.others) + len(self.elsewhere.integer) + 2  # two are of a cut
        left = self.schedule.left() - files * self.result.baseline.seconds
        allowed = f"{self.schedule.seconds / 60:g} minutes allow"
        epochs, most = max(0.0, left) / self.pace.epoch, recipes.MOST_EPOCHS
        if left < self.pace.least:
            text = f"{allowed} hardly any tuning: measuring is likely to take most of them"
        elif epochs > most * len(recipes.CUTS):
            text = f"{allowed} {most:g} epochs of tuning for each width, and that is enough"
        else:
            text = f"{allowed} at most {epochs:.1f} epochs of tuning in all"
        self.ledger.note(text)
        self._say(text)

    def _try_every_way(self) -> None:
        """The original in every runtime and precision of the target, then int8 in every runtime."""
        for way in self.elsewhere.others:
            name = self.attempts.enter(BASELINE, way, ())
            self.attempts.attempt(name, lambda: self.original, must=True)
        self.rungs.try_everywhere(lambda rung, way: self._quantize(rung, way, must=True))
        self._time_again()

    def _time_again(self) -> None:
        """All whose figures other load disturbed, in one sitting, before they decide anything."""
        every = [(one.name, one.measurement.latency) for one in self.result.candidates]
        names = [name for name, times in every if times is not None and times.disturbed]
        if names and self.schedule.left() > 0:
            self._say("timing again what other load disturbed")
            times, _ = self.workshop.time_what_runs(names, 2 * LATENCY_SECONDS)
            self.ledger.set_latencies(times)

    def _quantize(self, rung: str, way: Way, must: bool = False) -> Candidate:
        """The original quantized by a rung, with the integers that the way demands."""
        recipe = way.demanded(self.rungs.recipes[rung])
        name = self.attempts.enter(rung, way, recipe)
        key = json.dumps(recipes.to_json(recipe))

        def make() -> Network:
            if key not in self.quantized:
                network = self.original
                for one in recipe:
                    network = self.training.applied(one, network, name)
                self.quantized[key] = network
            return self.quantized[key]

        return self.attempts.attempt(name, make, must)

    def _climb(self) -> None:
        before = len(self.result.candidates)
        self.rungs.climb(self._quantize, lambda one: self.schedule.affords(one.seconds))
        if len(self.result.candidates) > before:
            self._time_again()
            self.rungs.choose()

    def _refine(self) -> None:
        """For a small file fewer bits, for a fast one layers in float that int8 slows down."""
        if self.rungs.name not in self.attempts.networks:
            return
        before = self.result.find(self.rungs.name)
        if self.result.goal == "size" and before.status == "kept":
            affords = self.schedule.affords
            self.rungs.descend(self._quantize, lambda one: affords(one.seconds, FEWER_BITS_SHARE))
        elif self.schedule.affords(before.seconds + 2 * self.workshop.timing_seconds, FLOAT_SHARE):
            self.rungs.leave_in_float(self._quantize, self.workshop, self.original)
        else:
            self.ledger.note(f"too little time to look for layers that {before.name} slows down")

    def _cut(self) -> None:
        if self.pace is None or self.result.status(self.rungs.name) == "":
            return
        floats = {
            self.elsewhere.named(BASELINE, way): way
            for way in (self.elsewhere.usual, *self.elsewhere.others)
        }
        some = [self.result.find(name) for name in floats if name != BASELINE]
        best, _ = choose(self.result.baseline, some, self.result.goal, self.result.max_drop)
        way = floats[best.name]
        Cutting(self.attempts, self.training, self.rungs, way, self.pace).run()

    def _time_side_by_side(self) -> None:
        """The last word on latency: everything that keeps the budget, in one sitting."""
        kept = [one.name for one in self.result.candidates if one.status == "kept"]
        if not kept:
            return
        self._say("timing all that keep the budget side by side")
        times, refused = self.workshop.time_what_runs(kept, 2 * LATENCY_SECONDS)
        self.ledger.set_latencies(times)
        self.ledger.fail(refused)
        some = [self.result.find(name) for name in kept if name not in refused]
        best = self.result.find(self.result.chosen)
        self.ledger.record(*(_beside(one, best, self.result.goal) for one in some if one != best))

    def _prove_on_test(self) -> None:
        """Look at the test data, at last. The ledger hears of it once all looks are taken: an
        interrupted fit has learnt nothing from them, and one that is resumed begins anew."""

        def score(name: str) -> Array:
            self._say(f"testing {name}")
            return self.workshop.test(name)

        result = prove(self.result, score)
        chosen = self.attempts.networks[result.chosen]
        notes = self.workshop.notes_there(result.chosen, chosen)
        late = self.schedule.overrun()
        notes = (*result.notes, *([late] if late else []), *notes)
        self.ledger.finish(replace(result, notes=notes))
        self.progress("done", 1.0, self.result.chosen)


def _beside(one: Candidate, best: Candidate, goal: str) -> Candidate:
    """The candidate, with what is true of it beside the best as its reason."""
    mine, theirs = one.measurement, best.measurement
    if mine.latency is not None and is_disturbed(mine.latency):
        text = DISTURBED
    elif goal == "latency" and mine.latency is not None and theirs.latency is not None:
        text = told(mine.latency, theirs.latency, best.name)
    elif mine.file_bytes and theirs.file_bytes:
        text = f"{mine.file_bytes / theirs.file_bytes:.3f} of the bytes of {best.name}"
    else:
        return one
    return replace(one, reason="; ".join(filter(None, (one.reason, text))))
