"""Rounding: the quantization schemes that are tried, and the one that a search goes on with."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace

from penjing.contract import Latency
from penjing.passes import Equalize, Gptq, Pass, Quantize
from penjing.search.study import Study
from penjing.search.ways import Way
from penjing.trials.judgement.aim import Aim
from penjing.trials.judgement.choice import betters, choose, eligible, is_faster
from penjing.trials.judgement.goal import is_sure
from penjing.trials.trial import Proposal, Status, Trial

Passes = tuple[Pass, ...]
Asked = Generator[Sequence[Proposal], Sequence[Trial], Trial]
"""Proposes a candidate and returns its trial."""
Asking = Generator[Sequence[Proposal], Sequence[Trial], None]

INT8 = "int8"
"""The name of the first scheme. Pruned networks are called so with any scheme of eight bits."""
SCHEMES: dict[str, Passes] = {
    INT8: (Quantize(),),
    "int8 by percentile": (Quantize(ranges="percentile"),),
    "int8 equalized": (Equalize(), Quantize()),
}
"""Quantization schemes without training, by name. They are tried in this order until one keeps the
budget. The last pass of each is a `Quantize`, or refines one."""
FEWER_BITS: dict[str, Passes] = {
    f"int{bits} weights": (Quantize(weights=bits), Gptq()) for bits in (4, 3)
}
"""The schemes for small files, tried once eight bits keep the budget. Activations keep eight bits,
so runtimes still compute with the same integers, just as fast."""
FEWER_BITS_SHARE = 0.08  # the largest share of the time left that a step to fewer bits may take


@dataclass
class Rounding:
    """Tries quantization schemes and chooses the one with which pruned networks are quantized.

    Attributes:
        study: the fit.
        recipes: the passes of each scheme, by its name.
        chosen: the name of the scheme that the search goes on with.
        plain: the same before layers were left in float, which a network without them can't have.
        way: the runtime and the precision that it goes on with.
        newest: by way, the key of the last candidate that was measured there.
        tried: by key of each candidate that was measured, its scheme and its way.
        has_fewer_bits: whether fewer bits were tried.
    """

    study: Study
    recipes: dict[str, Passes] = field(default_factory=lambda: dict(SCHEMES))
    chosen: str = INT8
    plain: str = INT8
    way: Way = field(init=False)
    newest: dict[Way, str] = field(default_factory=dict)
    tried: dict[str, tuple[str, Way]] = field(default_factory=dict)
    has_fewer_bits: bool = False

    def __post_init__(self) -> None:
        self.way = self.study.ways.usual

    @property
    def recipe(self) -> Passes:
        """The passes of the chosen scheme."""
        return self.recipes[self.chosen]

    @property
    def label(self) -> str:
        """The name of the chosen scheme in the title of a pruned network."""
        return label_of(self.chosen)

    @property
    def trial(self) -> Trial | None:
        """The trial of the original, quantized by the chosen scheme; None if it wasn't measured."""
        trial = self._trial(self.way.candidate(*self.recipe).key)
        return trial if trial is not None and trial.drop is not None else None

    @property
    def every(self) -> dict[tuple[str, Way], Trial]:
        """All that was measured, by scheme and way."""
        known = ((how, self._trial(key)) for key, how in self.tried.items())
        return {how: trial for how, trial in known if trial is not None}

    def try_everywhere(self) -> Asking:
        """Try the first scheme in every way, because accuracy may differ between runtimes."""
        for way in self.study.ways.integer:
            yield from self._try(INT8, way, must=True)
        self.study.time_again()
        self.choose()

    def try_schemes(self) -> Asking:
        """Try the other schemes in every way whose file would win if it kept the budget."""
        before = len(self.tried)
        for scheme in [scheme for scheme in self.recipes if scheme != INT8]:
            for way in sorted(self.newest, key=self._lost):
                if not self._is_open(way):
                    continue
                if self.study.affords(self._newest(way).seconds):
                    yield from self._try(scheme, way)
                else:
                    title = self.study.ways.title(scheme, way)
                    self.study.note(f"too little time to try {title}")
        if len(self.tried) > before:
            self.study.time_again()
        self.choose()

    def try_fewer_bits(self) -> Asking:
        """Try fewer bits, for a small file, until a scheme breaks the budget or time runs short;
        once."""
        if self.has_fewer_bits:
            return
        self.has_fewer_bits = True
        for scheme, recipe in FEWER_BITS.items():
            newest = self._newest(self.way)
            if not self.study.affords(newest.seconds, FEWER_BITS_SHARE):
                now = self.study.ways.title(self.chosen, self.way)
                self.study.note(f"too little time to try fewer bits than in {now}")
                return
            self.recipes[scheme] = recipe
            trial = yield from self._ask(scheme, self.way)
            if trial.drop is not None:
                self.tried[trial.key] = scheme, self.way
            if trial.status != Status.KEPT:
                return
            self.chosen = self.plain = scheme

    def leave_in_float(self) -> Asking:
        """Try to leave those layers in float that the chosen scheme slows down.

        The search goes on with the result if it keeps the budget and the scheme alone doesn't, or
        if both keep it and the result is faster. The scheme can still become the answer.
        """
        before, rival = self.trial, self.study.original(self.way)
        if before is None or before.latency is None or rival is None:
            return
        slow = self.study.evaluator.slower_layers(before, rival)
        if slow is None:
            who = self.study.evaluator.profiler(before)
            self.study.note(
                f"{who} doesn't report the time of each layer, so penjing couldn't look for "
                f"layers that {before.title} slows down"
            )
        if not slow:
            return
        scheme = f"{self.chosen} with {len(slow)} in float"
        self.recipes[scheme] = in_float(self.recipe, slow)
        trial = yield from self._ask(scheme, self.way)
        if trial.latency is None:
            return
        times = self.study.evaluator.compare(trial, before)
        why = explained(before.title, slow, times)
        self.study.remark(trial, "; ".join(filter(None, (trial.reason, why))))
        if _goes_on(trial, before, times):
            self.chosen = scheme

    def choose(self) -> None:
        """Choose the scheme and the way to go on with.

        They are those of the best trial that can be the answer; failing that, of the fastest that
        keeps the budget; failing that, of the one that loses least.
        """
        trials = self._measured()
        if trials:
            best = _best(trials, self.study.result.baseline, self.study.result.aim)
            self.chosen, self.way = self.tried[best.key]
            self.plain = self.chosen

    def _ask(self, scheme: str, way: Way, must: bool = False) -> Asked:
        proposal = self.study.proposal(scheme, *self.recipes[scheme], way=way, must=must)
        (trial,) = yield [proposal]
        return trial

    def _try(self, scheme: str, way: Way, must: bool = False) -> Asking:
        trial = yield from self._ask(scheme, way, must)
        if trial.drop is not None:
            self.newest[way] = trial.key
            self.tried[trial.key] = scheme, way

    def _trial(self, key: str) -> Trial | None:
        return self.study.ledger.trial(key)

    def _measured(self) -> list[Trial]:
        """The trials so far, with their newest figures."""
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
        """Whether another scheme could win in that way.

        It could if the last scheme broke the budget there, and no other way has a faster file that
        keeps it. All schemes are taken to be equally fast.
        """
        mine, trials = self._newest(way), self._measured()
        baseline, aim = self.study.result.baseline, self.study.result.aim
        if mine.status != Status.OVER_BUDGET:
            return False
        if not any(trial.status == Status.KEPT for trial in trials):
            return True
        if not any(eligible(trial, baseline, aim) for trial in trials):
            return betters(mine, baseline, aim)
        best, _ = choose(baseline, trials, aim)
        if aim.goal == "latency":
            return is_faster(mine, best)
        return aim.share(mine, baseline) < aim.share(best, baseline)


def label_of(scheme: str) -> str:
    """What a scheme is called in the title of a pruned network."""
    return scheme if scheme in FEWER_BITS else INT8


def _best(trials: Sequence[Trial], baseline: Trial, aim: Aim) -> Trial:
    best, _ = choose(baseline, trials, aim)
    if best is not baseline:
        return best
    kept = [trial for trial in trials if trial.status == Status.KEPT]

    def rank(trial: Trial) -> tuple[bool, float]:
        if kept:
            return not is_sure(aim.goal, trial), aim.share(trial, baseline)
        assert trial.drop is not None
        return False, trial.drop.drop

    return min(kept or trials, key=rank)


def _goes_on(trial: Trial, before: Trial, times: Latency) -> bool:
    if trial.status != before.status:
        return trial.status == Status.KEPT
    if trial.status == Status.KEPT:
        return times.verdict == "faster" and not times.disturbed
    mine, theirs = trial.drop, before.drop
    return mine is not None and theirs is not None and mine.drop < theirs.drop


def in_float(recipe: Passes, layers: Sequence[str]) -> Passes:
    """The recipe, changed so that these layers stay in float."""
    floats = dict.fromkeys(layers, 0)
    return tuple(
        replace(step, layers={**step.layers, **floats}) if isinstance(step, Quantize) else step
        for step in recipe
    )


def explained(before: str, layers: Sequence[str], times: Latency) -> str:
    """One line that names the layers left in float, and compares the file with `before`."""
    named = ", ".join(layers[:3]) + (", ..." if len(layers) > 3 else "")
    verdict = "disturbed" if times.disturbed else times.verdict
    return (
        f"layers that are slower in {before} than in float: {named}; with these in float, the "
        f"file takes {times.ratio:.3f} of its time ({times.ratio_low:.3f} - "
        f"{times.ratio_high:.3f}): {verdict}"
    )
