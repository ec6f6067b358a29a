"""FixedList: the search of this release. A fixed list of recipes, tried in the order of promise."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from penjing.contract import Array, Json, Measurement
from penjing.errors import InputError, PenjingError, ends_the_run, in_one_line
from penjing.network import Network, save
from penjing.passes import Compensate, Pass
from penjing.search import recipes
from penjing.search.elsewhere import Elsewhere
from penjing.search.ledger import Ledger
from penjing.search.looks import prove
from penjing.search.preflight import distillable, require_better_than_chance
from penjing.search.recipes import Recipe
from penjing.search.result import Candidate, Result
from penjing.search.rungs import Rungs
from penjing.search.workshop import BASELINE, LATENCY_SECONDS, UNTUNED, Workshop
from penjing.targets import Target

Progress = Callable[[str, float, str], None]
"""Called with the stage, the share done (0..1) and the best candidate so far."""
LEAST_TRAINING = 2.0  # seconds; less isn't worth beginning
FAR = 2.0  # times the budget
SPARE_SHARE = 0.02  # of all time, for what takes longer than planned
FLOAT_SHARE = 0.15  # of the time left, at most, for layers left in float
FEWER_BITS_SHARE = 0.08  # of the time left, at most, for each step to fewer bits
ELSEWHERE_SHARE = 0.25  # of the time left, at most, for other runtimes and float16
NO_TIME = "no time was left for it"


@dataclass
class FixedList:
    """One fit, step by step: int8 (and fewer bits for a small file), then three widths, each with
    and without the chosen quantization.

    Every step leaves its candidates in the ledger. A width is timed before it is tuned, because
    speed doesn't depend on the weights; it is tuned only if it can win. `check` raises
    KeyboardInterrupt once the run should end.
    """

    ledger: Ledger
    workshop: Workshop
    target: Target
    original: Network
    begin: float
    end: float
    progress: Progress
    check: Callable[[], None]
    networks: dict[str, Network] = field(default_factory=dict)
    cuts: dict[str, Recipe] = field(default_factory=dict)
    rungs: Rungs = field(init=False)
    elsewhere: Elsewhere = field(init=False)

    def __post_init__(self) -> None:
        self.rungs = Rungs(self.workshop.runtime.demands)
        self.elsewhere = Elsewhere.on(self.target, self.workshop.runtime)

    @property
    def result(self) -> Result:
        return self.ledger.result

    @property
    def rung(self) -> str:
        """The name of the quantization that goes on."""
        return self.rungs.chosen

    def run(self) -> None:
        """All steps; an interrupt leaves what is finished."""
        self._measure_original()
        try:
            self._quantize()
            self._try_elsewhere()
            self._cut()
            self._tune()
            self._time_side_by_side()
            self._prove_on_test()
        except KeyboardInterrupt:
            if self.result.finished:  # too late to change what the test data said
                self.ledger.finish(self.result)
                return
            waiting = [one for one in self.result.candidates if one.reason == NO_TIME]
            self.ledger.record(*(replace(one, reason="interrupted before it") for one in waiting))
            self.ledger.note(
                "interrupted: what was finished by then is measured, the test data decided "
                "nothing; --resume goes on"
            )
            self.ledger.deliver()

    def _say(self, stage: str) -> None:
        self.check()
        spent = (time.monotonic() - self.begin) / (self.end - self.begin)
        self.progress(stage, min(spent, 0.99), self.result.chosen)

    def _measure_original(self) -> None:
        self._say("measuring the original")
        self.networks[BASELINE] = self.original
        self.workshop.make(BASELINE, self.original)
        measured = self.workshop.measure(BASELINE, self.original)
        require_better_than_chance(
            self.workshop.task.metric.name,
            self.workshop.scores[BASELINE],
            self.workshop.validation,
        )
        self.ledger.record(self._measured(self._candidate(BASELINE, "baseline"), measured))
        made = self.workshop.settle(self.result.max_drop)
        self.ledger.promise(made)
        if made.note:
            self._say(made.note)

    def _quantize(self) -> None:
        def attempt(name: str) -> Candidate:
            self._say(name)
            self._try(name, lambda: self._quantized(self.original))
            return self.result.find(name)

        self.rungs.climb(attempt)
        if self.result.goal == "size" and self.result.status(self.rung) == "kept":
            self.rungs.descend(attempt, self._can_afford_fewer_bits)
            return
        cost = self.result.find(self.rung).seconds + 2 * self.workshop.timing_seconds
        if cost < FLOAT_SHARE * (self.end - time.monotonic()):
            self.rungs.leave_in_float(attempt, self.workshop, self.ledger, self.original)
        else:
            self.ledger.note(f"too little time to look for layers that {self.rung} slows down")

    def _can_afford_fewer_bits(self) -> bool:
        left = self.end - time.monotonic()
        if self.result.find(self.rung).seconds < FEWER_BITS_SHARE * left:
            return True
        self.ledger.note(f"too little time to look for fewer bits than {self.rung}'s")
        return False

    def _try_elsewhere(self) -> None:
        """The original and what was quantized in the target's other runtimes, and in float16."""
        usual = [BASELINE, *([self.rung] if self.result.status(self.rung) != "failed" else [])]
        names = self.elsewhere.add_everywhere(usual, [self.rung])
        if not names:
            return
        cost = self.result.find(self.rung).seconds * len(names)
        if cost > ELSEWHERE_SHARE * (self.end - time.monotonic()):
            self.ledger.note(f"too little time to try {', '.join(names)}")
            return
        found = [self._attempt_elsewhere(name) for name in names]
        kept = self.result.status(self.rung) == "kept"
        self.elsewhere.choose(min(1.0, self.result.ratio(self.rung)) if kept else 1.0, found)

    def _attempt_elsewhere(self, name: str) -> Candidate:
        self._say(name)
        self._try(name, lambda: self._as_demanded(name))
        return self.result.find(name)

    def _as_demanded(self, name: str) -> Network:
        """The candidate's base, quantized anew if the runtime demands other integers."""
        base = self.elsewhere.base(name)
        recipe = self.elsewhere.demanded(name, self._rounding(base))
        if recipe == self._rounding(base):
            return self.networks[base]
        cut = base.rpartition(" + ")[0]
        return self._quantized(self.networks[cut] if cut else self.original, recipe)

    def _rounding(self, name: str) -> Recipe:
        """The passes that quantize a candidate of the first runtime, its last ones."""
        if name in self.rungs.recipes:
            return self.rungs.recipes[name]
        return self.rungs.recipe if " + " in name else ()

    def _cut(self) -> None:
        """Prune at each share and time the files: speed doesn't depend on the weights."""
        found: dict[str, Measurement] = {}
        made = []
        for name, prune in recipes.cuts(self.target).items():
            self._say(f"cutting: {name}")
            plan = prune.plan(self.original, self.workshop.task)
            self.cuts[name] = (prune,)
            if not plan.edits:
                made.append(self._candidate(name, "not tuned", "nothing to remove"))
                continue
            try:
                network = prune.apply(self.original, plan, self.workshop.task)
                both = {name: network, self.rungs.after(name): self._quantized(network)}
                for key, one in both.items():  # into a file that tuning doesn't replace
                    self.workshop.make(key, one, stem=UNTUNED)
                    found[key] = self.workshop.sizes(key, one)
            except PenjingError as error:
                if ends_the_run(error):
                    raise
                made.append(self._candidate(name, "failed", str(error)))
        self._say("timing what was cut")
        kept = [self.rung] if self.result.status(self.rung) == "kept" else []
        times, refused = self.workshop.time_what_runs([*kept, *found], 2 * LATENCY_SECONDS)
        made += [self._candidate(name, "failed", why) for name, why in refused.items()]
        self.ledger.set_latencies({name: times[name] for name in kept if name in times})
        for name in (one for one in found if one in times):
            cut = name.rpartition(" + ")[0]
            why = f"{cut} failed" if cut in refused else NO_TIME
            measured = replace(found[name], latency=times[name])
            made.append(self._measured(self._candidate(name, "not tuned", why), measured))
        self.ledger.record(*made)

    def _tune(self) -> None:
        """Train what can win, the mildest cut first; stop after one that is far over the budget.

        Time that is left then goes to the fastest cut that was near the budget.
        """
        waiting = self._worth_tuning()
        near: list[str] = []
        given = 0.0
        while waiting:
            while len(waiting) > 1 and self._share_of(waiting) < LEAST_TRAINING:
                waiting.pop()  # rather a few well than all badly, and the mildest first
            given = self._share_of(waiting)
            name = waiting.pop(0)
            if not self._train(name, name, given) or self._keeps_budget(name):
                continue
            lost = self.result.drop(name)
            far = lost > FAR * self.result.max_drop
            if far:
                why = f"{name}, a milder cut, is far over the budget: {lost:.2f} points"
                for one in waiting:
                    self._leave(one, why)
                waiting.clear()
            if not (far and near):
                near.append(name)
        left = self._seconds_left(1)
        if near and left > max(given, LEAST_TRAINING):
            self._train(f"{near[-1]} tuned longer", near[-1], left)

    def _worth_tuning(self) -> list[str]:
        """The cuts that can win: for size all, for latency those faster than any milder way."""
        worth = []
        rivals = [BASELINE, *([self.rung] if self.result.status(self.rung) == "kept" else [])]
        for name in self.cuts:
            if self.result.status(name) != "not tuned" or self.result.latency(name) is None:
                continue
            both = [one for one in (name, self.rungs.after(name)) if self.result.latency(one)]
            fastest = min(both, key=self.result.ratio)
            beaten = [one for one in rivals if not self.result.is_faster(fastest, one)]
            if beaten and self.result.goal == "latency":
                ratio = self.result.ratio(fastest) / self.result.ratio(beaten[-1])
                self._leave(name, f"no faster than {beaten[-1]} ({ratio:.2f} of its time)")
                continue
            rivals.append(fastest)
            worth.append(name)
        return worth

    def _train(self, name: str, base: str, seconds: float) -> bool:
        """Tune the cut `base` and measure both of its files as `name`; False if that failed."""
        before = self._tuned_before(name)
        if before is not None:
            done = self._try(name, lambda: before)
        elif seconds < LEAST_TRAINING:
            return False
        else:
            done = self._try(name, lambda: self._tuned(name, base, seconds))
        if done:
            self._try(self.rungs.after(name), lambda: self._quantized(self.networks[name]))
        else:
            self._leave(self.rungs.after(name), f"{name} failed")
        return done

    def _tuned(self, name: str, base: str, seconds: float) -> Network:
        """The cut `base`, solved anew, trained for what is left of `seconds`, and saved."""
        end = time.monotonic() + seconds
        network, recipe = self.networks.get(base), self.cuts[base]
        if network is None:
            network, recipe = self.original, (*recipe, Compensate())
            for one in recipe:
                network = self._applied(one, network, name)
        left = max(end - time.monotonic(), LEAST_TRAINING)
        tune = recipes.tuning(
            left, distillable(self.workshop.task, self.original), self.result.seed
        )
        self.cuts[name] = (*recipe, tune)
        network = self._applied(tune, network, name)
        save(network, self.workshop.folder(name) / "network")
        return network

    def _applied(self, one: Pass, network: Network, name: str) -> Network:
        """What a pass makes of a network; it doesn't see the data by which it will be judged, or
        the epoch that was lucky there would be chosen."""
        blind = replace(self.workshop.task, validation=None)
        return one(network, blind, lambda line, _: self._say(f"{name}: {line}"))

    def _tuned_before(self, name: str) -> Network | None:
        """What an interrupted run had tuned; None if it had not, or if that can't be read."""
        network, damage = self.workshop.tuned_before(name)
        if damage:
            self.ledger.note(f"{name} is tuned anew, for what an earlier run left is bad: {damage}")
        if network is not None:
            self._say(f"{name}, tuned before")
            self.cuts[name] = recipes.from_plans(network.history)
        return network

    def _share_of(self, waiting: Sequence[str]) -> float:
        """Seconds for each of the cuts that wait, if all are trained alike."""
        return self._seconds_left(len(waiting)) / len(waiting)

    def _seconds_left(self, trainings: int) -> float:
        """For training, once measuring, the last comparison and the test are paid for."""
        measuring = 2 * (2 * self.workshop.timing_seconds + 2 * self.workshop.scoring_seconds)
        ending = 3 * self.workshop.timing_seconds + self.workshop.testing_seconds()
        ending += SPARE_SHARE * (self.end - self.begin)
        return self.end - time.monotonic() - trainings * measuring - ending

    def _try(self, name: str, make: Callable[[], Network]) -> bool:
        """Make and measure one candidate; a failure is recorded and the run goes on."""
        begin = time.monotonic()
        way = self.elsewhere.way(name)
        try:
            network = make()
            for problem in way.runtime.problems(network, self.target, way.floats):
                raise InputError(problem)
            self.workshop.make(name, network, way.runtime, way.floats)
            self.check()
            measured = self.workshop.measure(name, network)
            self.check()
            candidate = self._candidate(name, *self._judge(measured))
            candidate = self._measured(candidate, measured, time.monotonic() - begin)
            self.networks[name] = network
        except Exception as error:
            if ends_the_run(error):
                raise
            candidate = self._candidate(name, "failed", in_one_line(error))
        self.ledger.record(candidate)
        return candidate.status != "failed"

    def _candidate(self, name: str, status: str, reason: str = "") -> Candidate:
        way = self.elsewhere.way(name)
        recipe, runtime = self._recipe(name), way.runtime.name
        return Candidate(name, recipe, status, reason, runtime=runtime, floats=way.floats)

    def _measured(self, one: Candidate, figures: Measurement, seconds: float = 0.0) -> Candidate:
        path, sha256 = self.workshop.proof(one.name)
        return replace(one, measurement=figures, artifact=path, sha256=sha256, seconds=seconds)

    def _judge(self, measured: Measurement) -> tuple[str, str]:
        assert measured.drop is not None
        return self.workshop.promise.judge(measured.drop)

    def _time_side_by_side(self) -> None:
        """The last word on latency: everything that keeps the budget, in one sitting."""
        usual = self.networks.keys() - self.elsewhere.made.keys()
        kept = [one.name for one in self.result.candidates if one.status == "kept"]
        cut = [one for one in kept if one in usual and one.startswith(tuple(self.cuts))]
        for name in self.elsewhere.add_in_chosen(cut, [one for one in cut if self._rounding(one)]):
            self._attempt_elsewhere(name)
        kept = [one.name for one in self.result.candidates if one.status == "kept"]
        if not kept:
            return
        self._say("timing all that keep the budget side by side")
        times, refused = self.workshop.time_what_runs(kept, 2 * LATENCY_SECONDS)
        self.ledger.set_latencies(times)
        self.ledger.fail(refused)
        for name in [one for one in kept if one in times]:
            rival = self.rung in times and name != self.rung
            if rival and not self.result.is_faster(name, self.rung):
                ratio = self.result.ratio(name) / self.result.ratio(self.rung)
                why = f"no faster than {self.rung} ({ratio:.2f} of its time)"
                self.ledger.record(replace(self.result.find(name), reason=why))

    def _prove_on_test(self) -> None:
        """Look at the test data, at last. The ledger hears of it once all looks are taken: an
        interrupted fit has learnt nothing from them, and one that is resumed begins anew."""

        def score(name: str) -> Array:
            self._say(f"testing {name}")
            return self.workshop.test(name)

        result = prove(self.result, score)
        notes = self.workshop.notes_there(result.chosen, self.networks[result.chosen])
        self.ledger.finish(replace(result, notes=(*result.notes, *notes)))
        self.progress("done", 1.0, self.result.chosen)

    def _recipe(self, name: str) -> tuple[Json, ...]:
        """The passes that make a candidate, as JSON."""
        base = self.elsewhere.base(name)
        cut = base.rpartition(" + ")[0] or base
        rounding = self.elsewhere.demanded(name, self._rounding(base))
        return tuple(recipes.to_json((*self.cuts.get(cut, ()), *rounding)))

    def _quantized(self, network: Network, recipe: Recipe | None = None) -> Network:
        for one in self.rungs.recipe if recipe is None else recipe:
            network = self._applied(one, network, self.rung)
        return network

    def _leave(self, cut: str, why: str) -> None:
        """Say of both files of a cut why it wasn't tuned."""
        both = [one for one in self.result.candidates if one.name in (cut, self.rungs.after(cut))]
        self.ledger.record(*(replace(one, reason=why) for one in both))

    def _keeps_budget(self, cut: str) -> bool:
        return "kept" in (self.result.status(cut), self.result.status(self.rungs.after(cut)))
