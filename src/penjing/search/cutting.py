"""Cutting: the widths of a fit. As many are cut and timed as can be tuned, and those that can win
are tuned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from penjing.contract import Measurement
from penjing.errors import PenjingError, ends_the_run
from penjing.network import Network
from penjing.passes import Compensate, PruneChannels
from penjing.search import recipes
from penjing.search.attempts import NOT_TRIED, Attempts
from penjing.search.comparison import is_disturbed, told
from penjing.search.elsewhere import Way
from penjing.search.recipes import MOST_EPOCHS, Recipe
from penjing.search.result import Result
from penjing.search.rungs import Rungs
from penjing.search.training import Pace, Training
from penjing.search.workshop import BASELINE, LATENCY_SECONDS

FAR = 2.0  # times the budget
NO_TIME = "no time was left for it"


@dataclass
class Cutting:
    """Each width as two candidates: with real numbers, and quantized by the chosen rung.

    Attributes:
        floats: the way of those with real numbers; the rungs have that of the others.
        pace: how fast the original trains.
        recipes, networks: of the cuts, by their own names, to which a way may be added.
        measuring: seconds to make and measure both files of a cut, as it was seen so far.
    """

    attempts: Attempts
    training: Training
    rungs: Rungs
    floats: Way
    pace: Pace
    recipes: dict[str, Recipe] = field(default_factory=dict)
    networks: dict[str, Network] = field(default_factory=dict)
    measuring: float = field(init=False)
    trained: float = 0.0

    def __post_init__(self) -> None:
        elsewhere = self.attempts.elsewhere
        float_file = self.result.find(elsewhere.named(BASELINE, self.floats))
        self.measuring = float_file.seconds + self.result.find(self.rungs.name).seconds

    @property
    def result(self) -> Result:
        """What the ledger holds."""
        return self.attempts.result

    def run(self) -> None:
        """Cut, time, and tune."""
        left = self._share_of(1, 1) / self.pace.epoch
        if self.attempts.schedule.epochs is None and left < MOST_EPOCHS * len(recipes.CUTS):
            text = (
                f"after measuring every way there is time for {max(0.0, left):.1f} epochs of tuning"
            )
            self.attempts.ledger.note(text)
            self.attempts.say(text)
        self._tune(self._cut_all())

    def pair(self, cut: str) -> list[str]:
        """The names of a cut's two candidates."""
        named = self.attempts.elsewhere.named
        return [named(cut, self.floats), named(self.rungs.after(cut), self.rungs.way)]

    def _cut_all(self) -> list[str]:
        """Cut the mildest widths, no more than can be tuned; those that can win go on."""
        waiting = list(recipes.cuts(self.attempts.target).items())
        worth: list[str] = []
        while waiting and (some := self._affordable(len(worth), waiting)):
            batch, waiting = dict(waiting[:some]), waiting[some:]
            self._cut(batch)
            worth += self._worth_tuning(list(batch), worth)
        for name, prune in waiting:
            self._enter(name, (prune,))
            left = self._share_of(len(worth) + 1, 1) / self.pace.epoch
            why = f"there was time for {left:.2g} epochs of tuning, too few to be worth cutting it"
            if left <= 0:
                why = "no time was left to tune it, so it wasn't cut"
            self.attempts.ledger.record(
                *(self.attempts.candidate(one, NOT_TRIED, why) for one in self.pair(name))
            )
        return worth

    def _affordable(self, worth: int, waiting: Sequence[tuple[str, PruneChannels]]) -> int:
        """How many more can be cut such that they all can be tuned, and those that wait for it."""
        saved = sum(self.training.is_saved(name) for name, _ in waiting)
        for some in range(len(waiting), saved, -1):
            if self._share_of(worth + some, some) >= self.pace.least:
                return some
        return saved

    def _enter(self, cut: str, recipe: Recipe) -> None:
        self.recipes[cut] = recipe
        self.attempts.enter(cut, self.floats, recipe)
        rounding = self.rungs.recipe
        self.attempts.enter(self.rungs.after(cut), self.rungs.way, (*recipe, *rounding))

    def _cut(self, batch: dict[str, PruneChannels]) -> None:
        """Prune and time the files: speed doesn't depend on the weights."""
        attempts, found = self.attempts, dict[str, Measurement]()
        made = []
        for cut, prune in batch.items():
            attempts.say(f"cutting: {cut}")
            self._enter(cut, (prune,))
            plain, rounded = self.pair(cut)
            task = attempts.workshop.task
            plan = prune.plan(self.training.original, task)
            if not plan.edits:
                made.append(attempts.candidate(plain, "not tuned", "nothing to remove"))
                continue
            try:
                network = prune.apply(self.training.original, plan, task)
                both = {plain: network, rounded: self._quantized(network, cut)}
                for name, one in both.items():  # into a file that tuning doesn't replace
                    found[name] = attempts.untuned(name, one)
            except PenjingError as error:
                if ends_the_run(error):
                    raise
                found.pop(plain, None)
                made.append(attempts.candidate(plain, "failed", str(error)))
        attempts.say("timing what was cut")
        best = [] if self.result.chosen == BASELINE else [self.result.chosen]
        times, refused = attempts.workshop.time_what_runs([*best, *found], 2 * LATENCY_SECONDS)
        made += [attempts.candidate(name, "failed", why) for name, why in refused.items()]
        attempts.ledger.set_latencies({name: times[name] for name in best if name in times})
        plain_of = {self.pair(cut)[1]: self.pair(cut)[0] for cut in batch}
        for name in (one for one in found if one in times):
            why = f"{plain_of[name]} failed" if plain_of.get(name) in refused else NO_TIME
            measured = replace(found[name], latency=times[name])
            made.append(attempts.measured(attempts.candidate(name, "not tuned", why), measured))
        attempts.ledger.record(*made)

    def _worth_tuning(self, cuts: Sequence[str], milder: Sequence[str]) -> list[str]:
        """The cuts that can win: for size all, for latency those faster than what may be the answer
        already and than any milder cut. What other load disturbed may win too."""
        worth: list[str] = []
        for cut in cuts:
            plain, _ = pair = self.pair(cut)
            if self.result.status(plain) != "not tuned" or self.result.latency(plain) is None:
                continue
            timed = [one for one in pair if self.result.status(one) and self.result.latency(one)]
            rivals = [BASELINE, self.result.chosen, *map(self._fastest, (*milder, *worth))]
            rival = self._unbeaten(timed, rivals)
            if rival is None or self.result.goal != "latency":
                worth.append(cut)
                continue
            for name in timed:
                mine, theirs = self.result.latency(name), self.result.latency(rival)
                assert mine is not None
                assert theirs is not None
                self._leave([name], told(mine, theirs, rival))
        return worth

    def _unbeaten(self, names: Sequence[str], rivals: Sequence[str]) -> str | None:
        """The last of the rivals that none of these files is faster than; None if there is none, or
        if that can't be told."""
        times = [self.result.latency(one) for one in names]
        if any(one is not None and is_disturbed(one) for one in times):
            return None
        found = None
        for rival in rivals:
            theirs = self.result.latency(rival)
            if theirs is None or is_disturbed(theirs):
                continue
            if not any(self.result.is_faster(one, rival) for one in names):
                found = rival
        return found

    def _fastest(self, cut: str) -> str:
        timed = [one for one in self.pair(cut) if self.result.status(one)]
        return min((one for one in timed if self.result.latency(one)), key=self.result.ratio)

    def _tune(self, waiting: list[str]) -> None:
        """Train what can win, the mildest cut first; stop after one that is far over the budget.

        Time that is left then goes to the harshest cut that was near the budget.
        """
        near: list[str] = []
        given = 0.0
        while waiting:
            while len(waiting) > 1 and self._share_of(len(waiting)) < self.pace.least:
                waiting.pop()  # rather a few well than all badly, and the mildest first
            given = self._share_of(len(waiting))
            cut = waiting.pop(0)
            if not self._train(cut, cut, given) or self._keeps_budget(cut):
                continue
            far = self.result.drop(self.pair(cut)[0]) > FAR * self.result.max_drop
            if far:
                for one in waiting:
                    self._leave(self.pair(one), f"{cut}, a milder cut, is far over the budget")
                waiting.clear()
            if not (far and near):
                near.append(cut)
        left = self._share_of(1)
        if near and left > max(given, self.pace.least):
            self._train(f"{near[-1]} tuned longer", near[-1], left)

    def _train(self, cut: str, base: str, seconds: float) -> bool:
        """Tune the cut `base` and measure both of its files as `cut`; False if that failed."""
        saved = self._tuned_before(cut)
        if seconds < self.pace.least and saved is None:
            return False
        if cut != base:
            self._enter(cut, self.recipes[base])
        begin, self.trained = self.attempts.schedule.spent(), 0.0
        plain, rounded = self.pair(cut)
        done = self.attempts.attempt(
            plain,
            lambda: self._taken_over(cut, saved) if saved else self._tuned(cut, base, seconds),
            must=True,
        )
        if done.status == "failed":
            self._leave([rounded], f"{plain} failed")
            return False
        self._enter(cut, self.recipes[cut])
        self.attempts.attempt(rounded, lambda: self._quantized(self.networks[cut], cut), must=True)
        self.measuring = self.attempts.schedule.spent() - begin - self.trained
        return True

    def _tuned(self, cut: str, base: str, seconds: float) -> Network:
        """The cut `base`, solved anew, trained for what is left of `seconds`, and saved."""
        begin = self.attempts.schedule.spent()
        network, recipe = self.networks.get(base), self.recipes[base]
        if network is None:
            network, recipe = self.training.original, (*recipe, Compensate())
            for step in recipe:
                network = self.training.applied(step, network, cut)
        left = seconds - (self.attempts.schedule.spent() - begin)
        network, tune = self.training.tuned(cut, network, left)
        self.trained = self.attempts.schedule.spent() - begin
        self.networks[cut] = network
        self._enter(cut, (*recipe, tune))
        return network

    def _tuned_before(self, cut: str) -> Network | None:
        """What an interrupted run had tuned; None if it had not, or if that can't be read."""
        network, damage = self.attempts.workshop.tuned_before(cut)
        if damage:
            self.attempts.ledger.note(
                f"{cut} is tuned anew, for what an earlier run left is bad: {damage}"
            )
        return network

    def _taken_over(self, cut: str, network: Network) -> Network:
        self.attempts.say(f"{cut}, tuned before")
        self.networks[cut] = network
        self._enter(cut, recipes.from_plans(network.history))
        return network

    def _quantized(self, network: Network, cut: str) -> Network:
        for step in self.rungs.recipe:
            network = self.training.applied(step, network, self.rungs.after(cut))
        return network

    def _share_of(self, trainings: int, to_cut: int = 0) -> float:
        """Seconds for each of so many trainings, if all are trained alike and so many of them have
        yet to be cut and timed."""
        shop = self.attempts.workshop
        scoring = 2 * (shop.timing_seconds + 2 * shop.scoring_seconds)
        cutting = to_cut * max(0.0, self.measuring - scoring)
        timing = 2 * shop.timing_seconds + 2 * to_cut * shop.travel_seconds if to_cut else 0.0
        left = self.attempts.schedule.left() - trainings * self.measuring - cutting - timing
        return left / trainings

    def _leave(self, names: Sequence[str], why: str) -> None:
        """Say of candidates that were timed why they weren't tuned."""
        known = [one for one in self.result.candidates if one.name in names]
        some = [one for one in known if one.status == "not tuned"]
        self.attempts.ledger.record(*(replace(one, reason=why) for one in some))

    def _keeps_budget(self, cut: str) -> bool:
        return "kept" in map(self.result.status, self.pair(cut))
