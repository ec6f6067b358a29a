"""Rounding: tries quantization schemes, and finds the one that a search goes on with."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

from penjing.contract import Latency, some_of
from penjing.network.graph.layers import layers_of
from penjing.network.graph.recurrent import RECURRENT
from penjing.search.strategies.schemes import (
    ALONE,
    FEWER_BITS,
    INT4,
    INT8,
    MIXED,
    SCHEMES,
    WEIGHTS_ALONE,
    Passes,
    in_float,
    in_int16,
    label_of,
)
from penjing.search.study import Study
from penjing.search.ways import Way
from penjing.trials.judgement.aim import Aim
from penjing.trials.judgement.choice import betters, choose, eligible, is_faster
from penjing.trials.judgement.goal import is_sure, weights_of
from penjing.trials.trial import Proposal, Status, Trial

Asked = Generator[Sequence[Proposal], Sequence[Trial], Trial]
"""Proposes a candidate and returns its trial."""
Asking = Generator[Sequence[Proposal], Sequence[Trial], None]

HOPELESS = 4.0
"""No integers make up for an original that takes so many times as long as another runtime's: four
products of eight bits at most are computed where one of floats was."""
FEWER_BITS_SHARE = 0.08  # the largest share of the time left that a step to fewer bits may take
LOOKS = 3
"""How many widths by layer are tried at most; that finds the right one to a quarter of a bit."""
SLOWER = 1.5
"""How many times longer PyTorch takes for a sample than a runtime, about."""


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
    """

    study: Study
    recipes: dict[str, Passes] = field(default_factory=lambda: dict(SCHEMES))
    chosen: str = INT8
    plain: str = INT8
    way: Way = field(init=False)
    newest: dict[Way, str] = field(default_factory=dict)
    tried: dict[str, tuple[str, Way]] = field(default_factory=dict)

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
        """Try the first scheme in every way, because accuracy may differ between runtimes.

        Left out are those for which there is no time, and those whose original takes so long that
        integers can't make up for it.
        """
        for place, way in enumerate(self.study.ways.integer):
            why = self._why_not(way) if place else ""
            if why:
                self.study.note(f"{self.study.ways.title(INT8, way)} wasn't tried, because {why}")
            else:
                yield from self._try(INT8, way, must=not place)
        self.study.time_again()
        self.choose()

    def _why_not(self, way: Way) -> str:
        """Why the first scheme needn't be tried in that way; empty if it should be."""
        original = self.study.original(way)
        if not self.study.affords(0.0 if original is None else original.seconds):
            return "no time was left"
        if original is None or self.study.goal != "latency":
            return ""
        latencies = {
            trial.title: trial.latency
            for each in self.study.ways.every
            if (trial := self.study.original(each)) is not None and trial.latency is not None
        }
        steady = [title for title, latency in latencies.items() if not latency.disturbed]
        best = min(steady, key=lambda title: latencies[title].ratio, default="")
        if not best or original.title not in latencies:
            return ""
        times = latencies[original.title].ratio_low / latencies[best].ratio
        if times < HOPELESS:
            return ""
        return f"{original.title} takes more than {math.floor(times)} times as long as {best}"

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
        """Try four bits, for a small file, and then widths by layer, of fewer bits if four keep the
        budget and of more if they don't. Ends when time runs short."""
        before = self._newest(self.way)
        trial = yield from self._fewer(INT4, before.seconds)
        if trial is None or not _is_smaller(trial, before):
            return
        low, high = (2.0, 4.0) if trial.status == Status.KEPT else (4.0, 8.0)
        seconds = trial.seconds + self._mixing_seconds()
        for _ in range(LOOKS):
            bits = round(2 * (low + high)) / 4
            trial = yield from self._fewer(f"weights of {bits:g} bits", seconds)
            if trial is None:
                return
            low, high = (low, bits) if trial.status == Status.KEPT else (bits, high)
            seconds = trial.seconds

    def _fewer(
        self, scheme: str, seconds: float
    ) -> Generator[Sequence[Proposal], Sequence[Trial], Trial | None]:
        """Try a scheme of fewer bits, which takes so long, and go on with it if it keeps the
        budget; None if there is too little time, or if it couldn't be measured."""
        if not self.study.affords(seconds, FEWER_BITS_SHARE):
            self.study.note(f"too little time to try {self.study.ways.title(scheme, self.way)}")
            return None
        self.recipes[scheme] = FEWER_BITS[scheme]
        trial = yield from self._ask(scheme, self.way)
        if trial.drop is None:
            return None
        self.tried[trial.key] = scheme, self.way
        if trial.status == Status.KEPT:
            self.chosen = self.plain = scheme
        return trial

    def _mixing_seconds(self) -> float:
        """About how long `MixedPrecision` takes to see what each width does to each layer. Half of
        a network is behind a layer, on average."""
        evaluator = self.study.evaluator
        layers = len(layers_of(evaluator.made((), self.study.watch)))
        sample = SLOWER * evaluator.scoring_seconds / max(1, len(evaluator.original_scores()))
        return sample * MIXED.samples * len(MIXED.widths) * layers / 2

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

    def round_sensitive_less(self) -> Asking:
        """Try to leave those layers in float whose rounding loses most, as the head of a detector,
        if the chosen scheme doesn't keep the budget. Where a device computes on integers only,
        their results get 16 bits instead. The search goes on with the result if it loses less."""
        before = self.trial
        if before is None or before.status != Status.OVER_BUDGET:
            return
        if not self.study.affords(before.seconds):
            self.study.note(f"too little time to look for layers that {before.title} rounds badly")
            return
        sensitive = self.study.evaluator.sensitive_layers(before)
        if not sensitive:
            return
        wide = self._wide_way()
        way = wide or self.way
        how, change = ("16 bits", in_int16) if wide else ("float", in_float)
        scheme = f"{self.chosen} with {len(sensitive)} sensitive in {how}"
        self.recipes[scheme] = change(self.recipe, sensitive)
        trial = yield from self._ask(scheme, way)
        if trial.drop is None:
            return
        self.tried[trial.key] = scheme, way
        why = f"layers whose rounding loses most in {before.title}: {some_of(sensitive)}"
        self.study.remark(trial, "; ".join(filter(None, (trial.reason, why))))
        self.choose()

    def _wide_way(self) -> Way | None:
        """The way for the same device that has values of 16 bits, if that computes on integers
        only; None if there is none."""
        if self.way.runtime.floats:
            return None
        ways = [way for way in (self.way, *self.newest) if not way.runtime.floats]
        return next((way for way in ways if way.runtime.int16), None)

    def try_weights_alone(self) -> Asking:
        """Try integer weights with values in float: for a network with recurrent layers, and for a
        small file if rounding values breaks the budget."""
        before = self.trial
        small = "size" in weights_of(self.study.goal) or self.study.result.aim.max_kb is not None
        breaks = before is None or before.status == Status.OVER_BUDGET
        if not (_is_recurrent(self.study) or (small and breaks)):
            return
        self.recipes[ALONE] = WEIGHTS_ALONE
        for way in (way for way in self.study.ways.integer if way.runtime.weights_alone):
            if way in self.newest and not self.study.affords(self._newest(way).seconds):
                self.study.note(f"too little time to try {self.study.ways.title(ALONE, way)}")
                continue
            trial = yield from self._ask(ALONE, way)
            if trial.drop is not None:
                self.tried[trial.key] = ALONE, way
        self.choose()

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


def _is_recurrent(study: Study) -> bool:
    network = study.evaluator.made((), study.watch)
    return any(node.target in RECURRENT for node in network.calls())


def _is_smaller(trial: Trial, than: Trial) -> bool:
    mine, theirs = trial.measurement.file_bytes, than.measurement.file_bytes
    return mine is not None and theirs is not None and mine < theirs


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


def explained(before: str, layers: Sequence[str], times: Latency) -> str:
    """One line that names the layers left in float, and compares the file with `before`."""
    named = ", ".join(layers[:3]) + (", ..." if len(layers) > 3 else "")
    verdict = "disturbed" if times.disturbed else times.verdict
    return (
        f"layers that are slower in {before} than in float: {named}; with these in float, the "
        f"file takes {times.ratio:.3f} of its time ({times.ratio_low:.3f} - "
        f"{times.ratio_high:.3f}): {verdict}"
    )
