"""Cutting: the widths of `quick`. As many are cut and timed as can be tuned, and those that can win
are tuned."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace

from penjing.passes import Compensate, Pass, PruneChannels, Tune
from penjing.search.strategies.rounding import Asking, Recipe, Rounding
from penjing.search.study import Study
from penjing.search.ways import Way
from penjing.targets import Target
from penjing.trials.contract import Pace
from penjing.trials.judgement.choice import is_faster
from penjing.trials.judgement.comparison import is_disturbed, told
from penjing.trials.recipe import to_json
from penjing.trials.trial import Proposal, Status, Trial

CUTS = (0.25, 0.5, 0.75)
"""Shares of the channels to remove, the mildest first."""
MOST_EPOCHS = 20.0
FAR = 2.0  # times the budget


@dataclass
class Cut:
    """One width, as two files: with real numbers, and quantized by the chosen rung.

    Attributes:
        passes: that its network was made by, up to now.
        trials: of both files; those that were only timed until it is tuned.
    """

    title: str
    passes: Recipe
    trials: tuple[Trial, ...] = ()


def cuts(target: Target) -> list[Cut]:
    """The fixed widths.

    They are kept at multiples of half the target's own: a whole vector of channels would leave the
    narrow layers of small networks as they are.
    """
    multiple = max(1, target.channel_multiple // 2)
    return [
        Cut(
            f"prune {100 * share:.0f} %",
            (PruneChannels(share, importance="l1+l2", multiple=multiple, skip_mixed=True),),
        )
        for share in CUTS
    ]


@dataclass
class Cutting:
    """All widths, from the mildest on.

    Attributes:
        floats: the way of the files with real numbers; the rounding has that of the others.
        pace: how fast the original trains.
        measuring: seconds to make and measure both files of a cut, as it was seen so far.
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
        """Cut, time, and tune."""
        left = self._share_of(1, 1) / self.pace.epoch
        if self.study.schedule.epochs is None and left < MOST_EPOCHS * len(CUTS):
            text = (
                f"after measuring every way there is time for {max(0.0, left):.1f} epochs of tuning"
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
        """Cut the mildest widths, no more than can be tuned; those that can win go on."""
        waiting, worth = cuts(self.study.target), list[Cut]()
        while waiting and (count := self._affordable(len(worth), waiting)):
            batch, waiting = waiting[:count], waiting[count:]
            yield from self._cut(batch)
            worth += self._worth_tuning(batch, worth)
        for cut in waiting:
            left = self._share_of(len(worth) + 1, 1) / self.pace.epoch
            why = f"there was time for {left:.2g} epochs of tuning, too few to be worth cutting it"
            if left <= 0:
                why = "no time was left to tune it, so it wasn't cut"
            for proposal in self._pair(cut.title, cut.passes):
                self.study.leave_out(proposal, why)
        return worth

    def _affordable(self, worth: int, waiting: Sequence[Cut]) -> int:
        """How many more can be cut such that they all can be tuned, and those that wait for it."""
        trained = sum(self._trained_before(cut) is not None for cut in waiting)
        for count in range(len(waiting), trained, -1):
            if self._share_of(worth + count, count) >= self.pace.least:
                return count
        return trained

    def _cut(self, batch: Sequence[Cut]) -> Asking:
        """Prune and time the files: speed doesn't depend on the weights."""
        pairs = []
        for cut in batch:
            self.study.say(f"cutting: {cut.title}")
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
        """The cuts that can win: for size all, for latency those faster than what may be the answer
        already and than any milder cut. What other load disturbed may win too."""
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
        """Train what can win, the mildest cut first; stop after one that is far over the budget.

        Time that is left then goes to the harshest cut that was near the budget.
        """
        near: list[Cut] = []
        given = 0.0
        while waiting:
            while len(waiting) > 1 and self._share_of(len(waiting)) < self.pace.least:
                waiting.pop()  # rather a few well than all badly, and the mildest first
            given = self._share_of(len(waiting))
            cut = waiting.pop(0)
            done = yield from self._train(cut, given)
            if not done or any(trial.status == Status.KEPT for trial in cut.trials):
                continue
            drop = cut.trials[0].drop
            far = drop is not None and drop.drop > FAR * self.study.max_drop
            if far:
                for other in waiting:
                    self._give_up(other, f"{cut.title}, a milder cut, is far over the budget")
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
        """Tune a cut and measure both of its files; False if that failed."""
        trained = self._trained_before(cut)
        if seconds < self.pace.least and trained is None:
            return False
        probes = cut.trials
        limit = None
        if trained is None:
            self.study.say(cut.title)
            trained, limit = self._planned(cut, seconds)
        else:
            self.study.say(f"{cut.title}, tuned before")
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

    def _planned(self, cut: Cut, seconds: float) -> tuple[Recipe, float | None]:
        """The passes that solve the cut anew and train it for so many seconds, by its own measured
        pace, or for the schedule's epochs; and after how many seconds the training has to end."""
        begin = self.study.schedule.spent()
        solved = self._solved(cut)
        if self.study.schedule.epochs is not None:
            return (*solved, self.study.tuning(self.study.schedule.epochs)), None
        pace = self.study.pace(*solved)
        limit = max(seconds - (self.study.schedule.spent() - begin), pace.step)
        epochs = min(MOST_EPOCHS, max(limit / pace.epoch, 1 / pace.steps))
        return (*solved, self.study.tuning(round(epochs, 2) or epochs)), limit

    def _solved(self, cut: Cut) -> Recipe:
        """What precedes the training: the layers of a fresh cut solved anew."""
        is_fresh = not any(isinstance(step, Tune) for step in cut.passes)
        return (*cut.passes, Compensate()) if is_fresh else cut.passes

    def _trained_before(self, cut: Cut) -> Recipe | None:
        """The passes by which an interrupted run trained this cut, however long; None if none."""
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
        """Seconds for each of so many trainings, if all are trained alike and so many of them have
        yet to be cut and timed."""
        evaluator = self.study.evaluator
        scoring = 2 * (evaluator.timing_seconds + 2 * evaluator.scoring_seconds)
        cutting = to_cut * max(0.0, self.measuring - scoring)
        timing = 2 * evaluator.timing_seconds + 2 * to_cut * evaluator.travel_seconds
        timing = timing if to_cut else 0.0
        left = self.study.schedule.left() - trainings * self.measuring - cutting - timing
        return left / trainings

    def _give_up(self, cut: Cut, why: str, trials: Sequence[Trial] | None = None) -> None:
        """Say of a cut's files that were timed why they weren't tuned."""
        for trial in cut.trials if trials is None else trials:
            if trial.status == Status.NOT_TUNED:
                self.study.remark(trial, why)


def _timed(cut: Cut) -> list[Trial]:
    return [trial for trial in cut.trials if trial.latency is not None]


def _fastest(cut: Cut) -> Trial:
    return min(_timed(cut), key=lambda trial: trial.latency.ratio if trial.latency else 0.0)


def _unbeaten(trials: Sequence[Trial], rivals: Sequence[Trial]) -> Trial | None:
    """The last of the rivals that none of these is faster than; None if there is none, or if that
    can't be told."""
    if any(trial.latency is not None and is_disturbed(trial.latency) for trial in trials):
        return None
    unbeaten = None
    for rival in rivals:
        if rival.latency is None or is_disturbed(rival.latency):
            continue
        if not any(is_faster(trial, rival) for trial in trials):
            unbeaten = rival
    return unbeaten
