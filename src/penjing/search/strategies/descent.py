"""Descent: the second half of `joint`, from networks that cost less and less to the tuned files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from penjing.errors import ONE_CANDIDATES, is_one_candidates
from penjing.passes import Compensate, Tune
from penjing.search.predict.ladder import Step
from penjing.search.predict.recovery import Recovery, Tuned
from penjing.search.strategies.rounding import Asked, Asking
from penjing.search.strategies.route import Route
from penjing.search.strategies.schemes import Passes, again
from penjing.search.strategies.survey import Survey
from penjing.search.study import MOST_EPOCHS, Study
from penjing.trials.contract import Pace
from penjing.trials.judgement.wording import digits, measured
from penjing.trials.prediction import Prediction
from penjing.trials.trial import Status, Trial

SHARES = (0.2, 0.4, 0.7, 1.0)
"""Of the time that is left, what each training may take."""
TURNS = len(SHARES)
"""How many files are tuned at most."""
TEACHER = 0.3
"""The share of a training step that the original takes, about."""
COSTLY = 0.25
"""Where rounding alone takes more than this share of the budget, training with it may help."""
NEAR = 1.0
"""So many points beyond the budget it may still help."""
LEAST_GAIN = 0.98
"""A network whose file takes more than this share of a kept one's isn't worth a training."""
GENTLY = 0.1
"""The peak of the learning rate of such a training, of the usual one."""


@dataclass(frozen=True)
class Training:
    """A training.

    Attributes:
        step: the network.
        passes: what makes it, up to this training.
        before: the epochs for which what it was cut from, or itself, was trained already.
        epochs: how long to train it now.
        seconds: when to end it at the latest.
    """

    step: Step
    passes: Passes
    before: float
    epochs: float
    seconds: float | None = None


@dataclass
class Descent:
    """Cuts and tunes in turn, down to the cheapest network that keeps the budget.

    First comes a network halfway to the cheapest one that should keep the budget, so that there is
    an answer early. Each next one is cut from the last one that was tuned, and so begins with what
    that has learnt. What came of each training corrects what is expected of the next.

    Attributes:
        study: the fit.
        survey: the networks.
        pace: how fast the original trains.
        recovery: what is known of how much tuning makes up for.
        trained: by network that was tuned, the passes that made it, and for how many epochs.
        kept: the networks that keep the budget.
        useless: those that couldn't be measured, that cost no less than one that keeps it, or that
            cost no more than one that was trained twice and doesn't.
        titles: what files are called, by network.

    Source: T.-J. Yang et al., "NetAdapt: Platform-Aware Neural Network Adaptation for Mobile
    Applications", 2018 (cutting and tuning in turn).
    """

    study: Study
    survey: Survey
    pace: Pace
    recovery: Recovery = field(init=False)
    trained: dict[Step, tuple[Passes, float]] = field(default_factory=dict)
    kept: set[Step] = field(default_factory=set)
    useless: set[Step] = field(default_factory=set)
    margin: float = 0.0
    titles: dict[Step, str] = field(default_factory=dict)

    @property
    def route(self) -> Route:
        """The runtime, the precision and the rounding of all files."""
        return self.survey.route

    @property
    def steps(self) -> list[Step]:
        """Networks that cost less and less, see `penjing.search.predict.cost`."""
        return self.survey.steps

    def run(self) -> Asking:
        """Cut and tune, until the turns or the time are used up."""
        drop = self.route.trial.drop
        assert drop is not None
        self.recovery = Recovery.of_untuned(
            [step.loss for step in self.steps],
            [step.lost for step in self.steps],
            self.study.max_drop,
            floor=max(0.0, drop.drop),
        )
        self.margin = drop.bound - drop.drop
        over: dict[Step, float] = {}
        for turn in range(TURNS):
            nearest = min(over, key=over.__getitem__, default=None)
            if turn == TURNS - 1 and nearest and self._needs_rounding(over[nearest]):
                yield from self._with_rounding(nearest)
                return
            training = self._next(turn)
            if training is None:
                return
            again = training.step in self.trained
            trial = yield from self._tuned(training)
            over.pop(training.step, None)
            if trial.drop is None:
                self.useless.add(training.step)
            elif trial.status == Status.OVER_BUDGET:
                over[training.step] = trial.drop.drop
                if again:
                    self.useless |= {s for s in self.steps if s.share <= training.step.share}
            else:
                self.kept.add(training.step)

    def _next(self, turn: int) -> Training | None:
        """What to train next, and for how long.

        A resumed fit gives the same answer, if that training was finished.
        """
        name = f"{self.survey.name}, training {turn}"
        known = self.study.ledger.recall(name)
        if known is not None:
            step, epochs = self.steps[known["step"]], known["epochs"]
            for passes, before in self._starts(step):
                whole = (*passes, self._tuning(passes, epochs))
                file = self.route.way.candidate(*whole, *self.route.scheme)
                done = self.study.is_trained(*whole) or self.study.was_tried(file)
                if done or self._endless:
                    return Training(step, passes, before, epochs)
        chosen = self._pick()
        while chosen is not None and not self._gains(chosen):
            self.useless |= {step for step in self.steps if step.share >= chosen.share}
            chosen = self._pick()
        if chosen is not None and turn == 0:
            chosen = self._halfway(chosen)
        training = None if chosen is None else self._planned(chosen, SHARES[turn])
        if training is not None:
            place = self.steps.index(training.step)
            self.study.ledger.remember(name, {"step": place, "epochs": training.epochs})
        return training

    @property
    def _endless(self) -> bool:
        """Whether trainings have a given length, and time never runs out."""
        return self.study.schedule.epochs is not None

    def _pick(self) -> Step | None:
        """The cheapest network that should keep the budget if it gets all the time that is left;
        the costliest that would be an improvement if none should."""
        able = self._better()
        if self._endless:
            able = [step for step in able if step not in self.trained]
        should = [
            step
            for step in able
            if self.recovery.predicted(step.share, step.loss, self._epochs(step)) + self.margin
            <= self.study.max_drop
        ]
        if should:
            return min(should, key=lambda step: step.share)
        return max(able, key=lambda step: step.share, default=None)

    def _better(self) -> list[Step]:
        """The networks that would cost less than all that keeps the budget so far."""
        result = self.study.result
        measured = result.aim.share(result.answer, result.baseline)
        best = min([measured, *(step.share for step in self.kept)])
        return [step for step in self.steps if step.share < best and step not in self.useless]

    def _gains(self, step: Step) -> bool:
        """Whether a network costs less than all that keep the budget, by measured files too."""
        if step in self.trained or not self.kept:
            return True
        return self._measured(step) < LEAST_GAIN * min(map(self._measured, self.kept))

    def _measured(self, step: Step) -> float:
        """What a network's file takes of the original's; predicted, if it can't be made."""
        try:
            return self.survey.share_of(step)
        except ONE_CANDIDATES as error:  # its trial says what that means
            if not is_one_candidates(error):
                raise
            return step.share

    def _halfway(self, step: Step) -> Step:
        """The network between the uncut one and this one, by the ratio of what they cost."""
        result = self.study.result
        whole = result.aim.share(self.route.trial, result.baseline)
        if not math.isfinite(whole):
            return step
        middle = math.sqrt(whole * step.share)
        costlier = [other for other in self._better() if other.share >= step.share]
        return min(costlier, key=lambda other: abs(math.log(other.share / middle)))

    def _epochs(self, step: Step) -> float:
        """How long a network will have been trained if it gets all the time that is left."""
        _, before = next(self._starts(step))
        if self.study.schedule.epochs is not None:
            return before + self.study.schedule.epochs
        epoch = self.pace.epoch * (TEACHER + (1 - TEACHER) * step.macs)
        return before + min(MOST_EPOCHS, max(0.0, self._left()) / epoch)

    def _left(self) -> float:
        """Seconds for training; what measuring one more file takes is set aside."""
        return self.study.schedule.left() - self.route.trial.seconds

    def _starts(self, step: Step) -> Iterator[tuple[Passes, float]]:
        """How a network can be made before its next training, the best way first, and for how many
        epochs that was trained."""
        if step in self.trained:
            yield self.trained[step]
            return
        costlier = [other for other in self.trained if other.share > step.share]
        if costlier:
            last = min(costlier, key=lambda other: other.share)
            passes, epochs = self.trained[last]
            yield (*passes, *step.shape.passes_after(last.shape)), epochs
        yield (*step.shape.passes, Compensate()), 0.0

    def _planned(self, step: Step, share: float) -> Training | None:
        """How to make and how long to train a network; None if it can't be trained, or too briefly
        to be of use."""
        seconds = share * self._left()
        if seconds < self.pace.least and not self._endless:
            return None
        for passes, before in self._starts(step):
            length = self.study.length_if_any(seconds, step.shape, *passes)
            if length is not None:
                return Training(step, passes, before, *length)
        return None

    def _tuning(self, passes: Passes, epochs: float) -> Tune:
        """The training of what these passes make. After a cut, without least squares behind it, the
        statistics of batch norms are measured first."""
        is_cut = not isinstance(passes[-1], Tune | Compensate)
        tuning = self.study.tuning(epochs)
        return Tune(tuning.options) if is_cut else tuning

    def _tuned(self, training: Training) -> Asked:
        """Train a network, and measure its file."""
        step = training.step
        passes = (*training.passes, self._tuning(training.passes, training.epochs))
        title = f"{self._title(step)}{again(passes)}"
        trial = yield from self._asked(title, passes, (), training.seconds)
        if trial.drop is not None:
            epochs = training.before + self.study.epochs_trained(*passes)
            expected = self.recovery.predicted(step.share, step.loss, epochs)
            self.trained[step] = passes, epochs
            self._learn(trial, step, epochs, expected)
        return trial

    def _learn(self, trial: Trial, step: Step, epochs: float, expected: float) -> None:
        """Hold what came of a training against what was expected."""
        drop = trial.drop
        assert drop is not None
        self.margin = max(self.margin, drop.bound - drop.drop)
        self.study.ledger.predict(Prediction(trial.key, expected, step.share, epochs))
        self.recovery.seen.append(Tuned(step.share, step.loss, epochs, drop.drop))
        self.study.note(
            f"{trial.title} ({step.shape}; {epochs:.3g} epochs in all) was expected to lose "
            f"{measured(expected, drop.unit)} and lost {digits(drop.drop, drop.unit)}"
        )

    def _needs_rounding(self, drop: float) -> bool:
        """Whether a file is near enough to the budget that training with the rounding may help."""
        budget = self.study.max_drop
        is_costly = bool(self.route.scheme) and self.recovery.floor > COSTLY * budget
        return is_costly and drop <= budget + NEAR * self.study.result.point

    def _with_rounding(self, step: Step) -> Asking:
        """Train a network with its rounding in place, which is over the budget, but near it."""
        passes = self.trained[step][0]
        name = f"{self.survey.name}, step {self.steps.index(step)} with rounding"
        known = self.study.ledger.recall(name)
        epochs, seconds = known, None
        if known is None or not self._endless:
            left = self._left()
            if left < self.pace.least and not self._endless:
                return
            whole = (*passes, *self.route.scheme)
            length = self.study.length_if_any(left, step.shape, *whole)
            if length is None:
                return
            epochs, seconds = length if known is None else (known, length[1])
        self.study.ledger.remember(name, epochs)
        usual = self.study.tuning(epochs)
        gently = replace(usual, options=replace(usual.options, lr=GENTLY * usual.options.lr))
        title = f"{self._title(step)} trained with its rounding"
        yield from self._asked(title, passes, (gently,), seconds)

    def _asked(self, title: str, passes: Passes, behind: Passes, seconds: float | None) -> Asked:
        recipe = (*passes, *self.route.scheme, *behind)
        proposal = self.study.proposal(
            f"{title}{self.route.label}", *recipe, way=self.route.way, must=True
        )
        (trial,) = yield [replace(proposal, seconds=seconds)]
        return trial

    def _title(self, step: Step) -> str:
        """What its files are called, by what they cost, which is measured for that; no other
        network's are called so."""
        title = f"cut to {100 * self._measured(step):.3g} %"
        others = [other for other in self.titles if other != step]
        if title in (self.titles[other] for other in others):
            title = f"{title} ({step.shape})"
        return self.titles.setdefault(step, title)
