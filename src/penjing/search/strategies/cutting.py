"""Cutting: three widths, where there is no time for more.

The strategy prunes and times as many networks as it has time to tune, and tunes those that can win.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace

from penjing.passes import Compensate, Pass, PruneChannels, Tune
from penjing.search.strategies.rounding import Asking, Rounding
from penjing.search.strategies.schemes import Passes
from penjing.search.study import MOST_EPOCHS, Study
from penjing.search.ways import Way
from penjing.targets import Target
from penjing.trials.contract import Pace
from penjing.trials.judgement.choice import is_faster
from penjing.trials.judgement.comparison import is_disturbed, told
from penjing.trials.recipe import to_json
from penjing.trials.trial import Proposal, Status, Trial

CUTS = (0.25, 0.5, 0.75)
"""The shares of the channels to remove, the smallest first."""
FAR = 2.0  # a drop of this many times the budget is far over it


@dataclass
class Cut:
    """One pruned network and its two files: in float, and quantized by the chosen scheme.

    Attributes:
        title: the name of the file in float.
        passes: the passes that have made the network so far.
        trials: the trials of both files, only timed until the network is tuned.
    """

    title: str
    passes: Passes
    trials: tuple[Trial, ...] = ()


def cuts(target: Target) -> list[Cut]:
    """The pruned networks to try.

    Their widths are multiples of the target's `width_multiple`.
    """
    multiple = target.width_multiple
    return [
        Cut(
            f"prune {100 * share:.0f} %",
            (PruneChannels(share, importance="l1+l2", multiple=multiple, skip_mixed=True),),
        )
        for share in CUTS
    ]


@dataclass
class Cutting:
    """Prunes and tunes, from the widest network on.

    Attributes:
        study: the fit.
        rounding: the chosen quantization scheme, and the way of the quantized files.
        floats: the way of the files in float.
        pace: how fast the original trains.
        measuring: the seconds to make and measure both files of a pruned network, as seen so far.
    """

    study: Study
    rounding: Rounding
    floats: Way
    pace: Pace
    measuring: float = field(init=False)

    def __post_init__(self) -> None:
        files = (self.study.original(self.floats), self.rounding.trial)
        self.measuring = sum(trial.seconds for trial in files if trial is not None)

    def run(self) -> Asking:
        """Prune, time, and tune."""
        left = self._share_of(1, 1) / self.pace.epoch
        if self.study.schedule.epochs is None and left < MOST_EPOCHS * len(CUTS):
            text = (
                "after measuring all runtimes and precisions, there is time for "
                f"{max(0.0, left):.1f} epochs of tuning"
            )
            self.study.note(text, aloud=True)
        worth = yield from self._cut_all()
        yield from self._tune(worth)

    def _pair(self, title: str, passes: Sequence[Pass]) -> list[Proposal]:
        study, rounding = self.study, self.rounding
        rounded = f"{title} + {rounding.label}"
        return [
            study.proposal(title, *passes, way=self.floats),
            study.proposal(rounded, *passes, *rounding.recipe, way=rounding.way),
        ]

    def _cut_all(self) -> Generator[Sequence[Proposal], Sequence[Trial], list[Cut]]:
        """Prune as many networks as can be tuned, the widest first; return those that can win."""
        waiting, worth = cuts(self.study.target), list[Cut]()
        while waiting and (count := self._affordable(len(worth), waiting)):
            batch, waiting = waiting[:count], waiting[count:]
            yield from self._cut(batch)
            worth += self._worth_tuning(batch, worth)
        for cut in waiting:
            left = self._share_of(len(worth) + 1, 1) / self.pace.epoch
            why = f"not pruned, because there was time for only {left:.2g} epochs of tuning"
            if left <= 0:
                why = "not pruned, because no time was left to tune it"
            for proposal in self._pair(cut.title, cut.passes):
                self.study.leave_out(proposal, why)
        return worth

    def _affordable(self, worth: int, waiting: Sequence[Cut]) -> int:
        """How many more networks to prune if all of them, and those that wait, are to be tuned."""
        trained = sum(self._trained_before(cut) is not None for cut in waiting)
        for count in range(len(waiting), trained, -1):
            if self._share_of(worth + count, count) >= self.pace.least:
                return count
        return trained

    def _cut(self, batch: Sequence[Cut]) -> Asking:
        """Prune and time the files, since speed doesn't depend on the values of the weights."""
        pairs = []
        for cut in batch:
            self.study.say(f"pruning: {cut.title}")
            plain, rounded = self._pair(cut.title, cut.passes)
            if self.study.changes(*cut.passes):
                pairs.append(
                    (cut, [self.study.only_speed(proposal) for proposal in (plain, rounded)])
                )
            else:
                self.study.leave_out(plain, "nothing to remove", Status.NOT_TUNED)
        trials = iter((yield [proposal for _, pair in pairs for proposal in pair]))
        for cut, pair in pairs:
            cut.trials = tuple(next(trials) for _ in pair)
            plain_trial, rounded_trial = cut.trials
            if plain_trial.status == Status.FAILED and rounded_trial.status == Status.NOT_TUNED:
                self.study.remark(rounded_trial, f"{plain_trial.title} failed")

    def _worth_tuning(self, batch: Sequence[Cut], milder: Sequence[Cut]) -> list[Cut]:
        """The pruned networks that can win.

        For size, all of them can. For latency, a network has to be faster than the present answer
        and than any wider network. One whose timing was disturbed by other load can win too.
        """
        worth: list[Cut] = []
        result = self.study.result
        for cut in batch:
            timed = _timed(cut)
            if not timed or timed[0] is not cut.trials[0]:
                continue
            fastest = [_fastest(other) for other in (*milder, *worth)]
            rival = _unbeaten(timed, [result.baseline, result.answer, *fastest])
            if rival is None or self.study.goal != "latency":
                worth.append(cut)
                continue
            for trial in timed:
                assert trial.latency is not None
                assert rival.latency is not None
                self.study.remark(trial, told(trial.latency, rival.latency, rival.title))
        return worth

    def _tune(self, waiting: list[Cut]) -> Asking:
        """Train what can win, the widest network first; stop after one far over the budget.

        Time that is left goes to the narrowest network that came near the budget.
        """
        near: list[Cut] = []
        given = 0.0
        while waiting:
            while len(waiting) > 1 and self._share_of(len(waiting)) < self.pace.least:
                waiting.pop()  # better to train a few well than all of them badly
            given = self._share_of(len(waiting))
            cut = waiting.pop(0)
            done = yield from self._train(cut, given)
            if not done or any(trial.status == Status.KEPT for trial in cut.trials):
                continue
            drop = cut.trials[0].drop
            far = drop is not None and drop.drop > FAR * self.study.max_drop
            if far:
                for other in waiting:
                    self._give_up(other, f"{cut.title}, which is wider, is far over the budget")
                waiting.clear()
            if not (far and near):
                near.append(cut)
        left = self._share_of(1)
        if near and left > max(given, self.pace.least):
            longer = Cut(f"{near[-1].title} tuned longer", near[-1].passes)
            yield from self._train(longer, left)

    def _train(
        self, cut: Cut, seconds: float
    ) -> Generator[Sequence[Proposal], Sequence[Trial], bool]:
        """Tune a pruned network and measure both of its files; False if that failed."""
        trained = self._trained_before(cut)
        if seconds < self.pace.least and trained is None:
            return False
        probes = cut.trials
        limit = None
        if trained is None:
            self.study.say(cut.title)
            trained, limit = self._planned(cut, seconds)
        else:
            self.study.say(f"{cut.title}, tuned in an earlier run")
        cut.passes = trained
        plain, rounded = self._pair(cut.title, trained)
        if probes:
            plain, rounded = (
                replace(proposal, replaces=probe.key)
                for proposal, probe in zip((plain, rounded), probes, strict=True)
            )
        (first,) = yield [replace(plain, must=True, seconds=limit)]
        if first.status == Status.FAILED:
            self._give_up(cut, f"{first.title} failed", probes[1:])
            return False
        (second,) = yield [replace(rounded, must=True)]
        cut.trials = (first, second)
        self.measuring = first.seconds - first.making_seconds + second.seconds
        return True

    def _planned(self, cut: Cut, seconds: float) -> tuple[Passes, float | None]:
        """The passes that re-solve and train a pruned network, and after how many seconds the
        training has to end, see `Study.length_of`."""
        solved = self._solved(cut)
        epochs, limit = self.study.length_of(seconds, *solved)
        return (*solved, self.study.tuning(epochs)), limit

    def _solved(self, cut: Cut) -> Passes:
        """The passes before the training; a network that was just pruned is re-solved first."""
        is_fresh = not any(isinstance(step, Tune) for step in cut.passes)
        return (*cut.passes, Compensate()) if is_fresh else cut.passes

    def _trained_before(self, cut: Cut) -> Passes | None:
        """The passes with which an interrupted run trained this network; None if it didn't."""
        solved = self._solved(cut)
        start = to_json(solved)
        for candidate in self.study.ledger.proposed:
            known = list(candidate.recipe)
            if known[: len(start)] == start and len(known) > len(start):
                passes = candidate.passes[: len(start) + 1]
                if isinstance(passes[-1], Tune) and self.study.is_trained(*passes):
                    return passes
        return None

    def _share_of(self, trainings: int, to_cut: int = 0) -> float:
        """The seconds for each training, if the time left is shared equally.

        Args:
            trainings: how many networks will be trained.
            to_cut: how many of them have yet to be pruned and timed.
        """
        evaluator = self.study.evaluator
        scoring = 2 * (evaluator.timing_seconds + 2 * evaluator.scoring_seconds)
        cutting = to_cut * max(0.0, self.measuring - scoring)
        timing = 2 * evaluator.timing_seconds + 2 * to_cut * evaluator.travel_seconds
        timing = timing if to_cut else 0.0
        left = self.study.schedule.left() - trainings * self.measuring - cutting - timing
        return left / trainings

    def _give_up(self, cut: Cut, why: str, trials: Sequence[Trial] | None = None) -> None:
        """Record why the files of a pruned network were timed but not tuned."""
        for trial in cut.trials if trials is None else trials:
            if trial.status == Status.NOT_TUNED:
                self.study.remark(trial, why)


def _timed(cut: Cut) -> list[Trial]:
    return [trial for trial in cut.trials if trial.latency is not None]


def _fastest(cut: Cut) -> Trial:
    return min(_timed(cut), key=lambda trial: trial.latency.ratio if trial.latency else 0.0)


def _unbeaten(trials: Sequence[Trial], rivals: Sequence[Trial]) -> Trial | None:
    """The last rival that none of the trials beats in speed.

    None if there is no such rival, or if a trial's timing was disturbed.
    """
    if any(trial.latency is not None and is_disturbed(trial.latency) for trial in trials):
        return None
    unbeaten = None
    for rival in rivals:
        if rival.latency is None or is_disturbed(rival.latency):
            continue
        if not any(is_faster(trial, rival) for trial in trials):
            unbeaten = rival
    return unbeaten
