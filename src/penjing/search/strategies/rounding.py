"""Rounding: the ways to quantize that `quick` tries in each runtime, and the one that goes on."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace

from penjing.contract import Latency
from penjing.passes import Equalize, Gptq, Pass, Quantize
from penjing.search.study import Study
from penjing.search.ways import Way
from penjing.trials.judgement.choice import betters, choose, eligible, is_faster
from penjing.trials.trial import Proposal, Status, Trial

Recipe = tuple[Pass, ...]
Asked = Generator[Sequence[Proposal], Sequence[Trial], Trial]
"""Proposes a candidate, and returns its trial."""
Asking = Generator[Sequence[Proposal], Sequence[Trial], None]

INT8 = "int8"
"""The first rung, and what all with eight bits are called where something else was done first."""
LADDER: dict[str, Recipe] = {
    INT8: (Quantize(),),
    "int8 by percentile": (Quantize(ranges="percentile"),),
    "int8 equalized": (Equalize(), Quantize()),
}
"""Ways to quantize without training, tried in order until one keeps the budget. Each one's last
pass is a `Quantize`, or refines one."""
FEWER_BITS: dict[str, Recipe] = {
    f"int{bits} weights": (Quantize(weights=bits), Gptq()) for bits in (4, 3)
}
"""What is tried for a small file once eight bits keep the budget; values keep eight, so that
runtimes compute with integers as before, and just as fast."""
FEWER_BITS_SHARE = 0.08  # of the time left, at most, for each step to fewer bits


@dataclass
class Rounding:
    """Recipes by name, how far each way has climbed, and what the cuts go on with.

    Attributes:
        chosen, way: the rung with which the cuts are quantized too, and the way in which.
        newest: of each way, the key of the last candidate that was measured.
        tried: the rung and the way of each candidate that was measured, by key.
    """

    study: Study
    recipes: dict[str, Recipe] = field(default_factory=lambda: dict(LADDER))
    chosen: str = INT8
    way: Way = field(init=False)
    newest: dict[Way, str] = field(default_factory=dict)
    tried: dict[str, tuple[str, Way]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.way = self.study.ways.usual

    @property
    def recipe(self) -> Recipe:
        """The chosen rung's passes."""
        return self.recipes[self.chosen]

    @property
    def label(self) -> str:
        """How what is cut first and then quantized by the chosen rung is called."""
        return self.chosen if self.chosen in FEWER_BITS else INT8

    @property
    def trial(self) -> Trial | None:
        """Of the original quantized by the chosen rung; None if that wasn't measured."""
        trial = self._trial(self.way.candidate(*self.recipe).key)
        return trial if trial is not None and trial.drop is not None else None

    def try_everywhere(self) -> Asking:
        """The first rung in every way: what loses too much in one runtime may not in another."""
        for way in self.study.ways.integer:
            yield from self._try(INT8, way, must=True)
        self.study.time_again()
        self.choose()

    def climb(self) -> Asking:
        """Rung after rung, in those ways whose file would win if only it kept the budget."""
        before = len(self.tried)
        for rung in [rung for rung in self.recipes if rung != INT8]:
            for way in sorted(self.newest, key=self._lost):
                if not self._is_open(way):
                    continue
                if self.study.affords(self._newest(way).seconds):
                    yield from self._try(rung, way)
                else:
                    title = self.study.ways.title(rung, way)
                    self.study.note(f"too little time to try {title}")
        if len(self.tried) > before:
            self.study.time_again()
        self.choose()

    def descend(self) -> Asking:
        """From a rung that keeps the budget to fewer bits, until one doesn't or none is affordable:
        for small files."""
        for rung, recipe in FEWER_BITS.items():
            newest = self._newest(self.way)
            if not self.study.affords(newest.seconds, FEWER_BITS_SHARE):
                now = self.study.ways.title(self.chosen, self.way)
                self.study.note(f"too little time to look for fewer bits than {now}'s")
                return
            self.recipes[rung] = recipe
            trial = yield from self._ask(rung, self.way)
            if trial.status != Status.KEPT:
                return
            self.chosen = rung

    def leave_in_float(self) -> Asking:
        """Try the layers in float that the chosen rung slows down.

        That goes on if it keeps the budget where the rung doesn't, or if both do and its file is
        faster. Whether it may be the answer is no affair of the rung's.
        """
        before, rival = self.trial, self.study.original(self.way)
        if before is None or before.latency is None or rival is None:
            return
        slow = self.study.evaluator.slower_layers(before, rival)
        if slow is None:
            who = self.study.evaluator.profiler(before)
            self.study.note(
                f"{who} tells no layer's time, so none was looked for that {before.title} slows "
                "down"
            )
        if not slow:
            return
        rung = f"{self.chosen} with {len(slow)} in float"
        self.recipes[rung] = in_float(self.recipe, slow)
        trial = yield from self._ask(rung, self.way)
        if trial.latency is None:
            return
        times = self.study.evaluator.compare(trial, before)
        why = explained(before.title, slow, times)
        self.study.remark(trial, "; ".join(filter(None, (trial.reason, why))))
        if _goes_on(trial, before, times):
            self.chosen = rung

    def choose(self) -> None:
        """Go on with the best that may be the answer; else with what keeps the budget; only if
        nothing does, with what loses least."""
        trials = self._measured()
        if trials:
            best = _best(trials, self.study.result.baseline, self.study.goal)
            self.chosen, self.way = self.tried[best.key]

    def _ask(self, rung: str, way: Way, must: bool = False) -> Asked:
        proposal = self.study.proposal(rung, *self.recipes[rung], way=way, must=must)
        (trial,) = yield [proposal]
        return trial

    def _try(self, rung: str, way: Way, must: bool = False) -> Asking:
        trial = yield from self._ask(rung, way, must)
        if trial.drop is not None:
            self.newest[way] = trial.key
            self.tried[trial.key] = rung, way

    def _trial(self, key: str) -> Trial | None:
        return self.study.ledger.trial(key)

    def _measured(self) -> list[Trial]:
        """Those that were tried, with their newest figures."""
        return [trial for key in self.tried if (trial := self._trial(key)) is not None]

    def _newest(self, way: Way) -> Trial:
        trial = self._trial(self.newest[way])
        assert trial is not None
        return trial

    def _lost(self, way: Way) -> float:
        drop = self._newest(way).drop
        assert drop is not None
        return drop.drop

    def _is_open(self, way: Way) -> bool:
        """Whether another rung in that way could win: its last one broke the budget, and what keeps
        it elsewhere is slower, or no gain, or isn't there. Speed doesn't hang on the rung."""
        mine, trials = self._newest(way), self._measured()
        baseline, goal = self.study.result.baseline, self.study.goal
        if mine.status != Status.OVER_BUDGET:
            return False
        if not any(trial.status == Status.KEPT for trial in trials):
            return True
        if not any(eligible(trial, baseline, goal) for trial in trials):
            return betters(mine, baseline, goal)
        best, _ = choose(baseline, trials, goal, self.study.max_drop)
        return goal == "latency" and is_faster(mine, best)


def _best(trials: Sequence[Trial], baseline: Trial, goal: str) -> Trial:
    best, _ = choose(baseline, trials, goal, 0.0)
    if best is not baseline:
        return best
    kept = [trial for trial in trials if trial.status == Status.KEPT]
    return min(kept or trials, key=lambda trial: _rank(trial, bool(kept)))


def _rank(trial: Trial, by_time: bool) -> tuple[bool, float]:
    assert trial.drop is not None
    if by_time and trial.latency is not None:
        return trial.latency.disturbed, trial.latency.ratio
    return by_time, trial.drop.drop


def _goes_on(trial: Trial, before: Trial, times: Latency) -> bool:
    if trial.status != before.status:
        return trial.status == Status.KEPT
    if trial.status == Status.KEPT:
        return times.verdict == "faster" and not times.disturbed
    mine, theirs = trial.drop, before.drop
    return mine is not None and theirs is not None and mine.drop < theirs.drop


def in_float(recipe: Recipe, layers: Sequence[str]) -> Recipe:
    """The recipe with these layers in float."""
    floats = dict.fromkeys(layers, 0)
    return tuple(
        replace(step, layers={**step.layers, **floats}) if isinstance(step, Quantize) else step
        for step in recipe
    )


def explained(before: str, layers: Sequence[str], times: Latency) -> str:
    """One line: which layers, and what a file with them in float takes, `before`'s time being 1."""
    named = ", ".join(layers[:3]) + (", ..." if len(layers) > 3 else "")
    verdict = "disturbed" if times.disturbed else times.verdict
    return (
        f"{before} is slower than float in {named}; with them in float {times.ratio:.3f} of its "
        f"time ({times.ratio_low:.3f} - {times.ratio_high:.3f}): {verdict}"
    )
