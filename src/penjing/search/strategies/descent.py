"""Descent: the second half of `joint`, from what the parts of a network cost to the tuned files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from penjing.contract import Json
from penjing.errors import PenjingError, in_one_line, is_one_candidates
from penjing.network import Network
from penjing.passes import Compensate, Quantize
from penjing.search.predict.ladder import Ladder, Step
from penjing.search.predict.learning import learnt
from penjing.search.predict.parts import Parts
from penjing.search.predict.recovery import Recovery, Tuned
from penjing.search.predict.shape import Shape
from penjing.search.predict.times import TimeModel
from penjing.search.strategies.rounding import Asked, Asking, Passes
from penjing.search.strategies.route import Route
from penjing.search.study import MOST_EPOCHS, Study
from penjing.trials.contract import Pace, Watch
from penjing.trials.recipe import to_json
from penjing.trials.trial import Status

SHARES = (0.25, 0.4, 0.75)
"""Of the time that is left, what each training may take. The rest is for training with rounding."""
TURNS = len(SHARES) + 1
"""How many files are tuned at most, the one that is trained with its rounding included."""
LEARNING_SHARE = 0.3
"""Of the time that is left, what learning about the parts may take."""
SAMPLES = 512
"""Training samples on which losses are measured."""
PROBED_SAMPLES = 16
"""Calibration samples of a file that is only timed."""
TEACHER = 0.3
"""The share of a training step that the original takes, about."""
NEAR = 1.0
"""So many points beyond the budget, training with the rounding may still help."""
GENTLY = 0.1
"""The peak of the learning rate of such a training, of the usual one."""


@dataclass(frozen=True)
class Training:
    """A network to train, for so many epochs, and no longer than so many seconds."""

    step: Step
    epochs: float
    seconds: float | None = None


@dataclass
class Descent:
    """Learns what the parts of a network cost, and tunes the fastest network that should keep the
    budget.

    Attributes:
        study: the fit.
        route: the runtime, the precision and the rounding of all files.
        pace: how fast the original trains.
        steps: networks of less and less time.
        recovery: what is known of how much tuning makes up for.
        trained: by network that was tuned, the passes that made it, and for how many epochs.
        done: the networks with which nothing more is to be done: they keep the budget, or failed.
    """

    study: Study
    route: Route
    pace: Pace
    steps: list[Step] = field(default_factory=list)
    recovery: Recovery = field(default_factory=Recovery)
    trained: dict[Step, tuple[Passes, float]] = field(default_factory=dict)
    done: set[Step] = field(default_factory=set)
    _end: float = 0.0

    def prepare(self) -> str:
        """Learn what parts cost, and choose networks; the reason if that can't work, else empty."""
        known = self.study.ledger.recall(self._name)
        if known is None:
            schedule = self.study.schedule
            self._end = schedule.spent() + LEARNING_SHARE * schedule.left()
            try:
                known = self._learnt()
            except _LateError:  # which isn't remembered, since there may be more time next time
                return "there is too little time to learn what its parts cost"
            except (PenjingError, MemoryError, RuntimeError) as error:  # out of memory, the latter
                if not is_one_candidates(error):
                    raise
                known = {"why": in_one_line(error), "notes": [], "steps": []}
            self.study.ledger.remember(self._name, known)
        self.steps = [Step.from_json(data) for data in known["steps"]]
        for note in known["notes"]:
            self.study.note(note)
        return str(known["why"])

    @property
    def _name(self) -> str:
        """Under which the ledger remembers; what is learnt holds for one route."""
        return f"ladder of {self.route.candidate.key}"

    def _learnt(self) -> dict[str, Json]:
        network = self.study.evaluator.made((), self.study.watch)
        parts = Parts(network, self.study.target.width_multiple)
        if not parts.changes(Shape()):
            why = "the network has no block or axis that can be cut"
            return {"why": why, "notes": [], "steps": []}
        model = self._model(network, parts)
        model.require_additive()
        steps = self._found(Ladder(network, self.study.evaluator.blind, model, parts, SAMPLES))
        if not steps:
            why = "no part of the network can be cut that saves time"
            return {"why": why, "notes": [], "steps": []}
        rows = [step.to_json() for step in steps]
        return {"why": "", "notes": _notes(model, steps), "steps": rows}

    def _model(self, network: Network, parts: Parts) -> TimeModel:
        """A model of times in the way in which the files will ship."""
        study = self.study

        def made(shape: Shape) -> Network:
            return study.evaluator.made(to_json(shape.passes), study.watch)

        return learnt(network, parts, lambda shapes: self._times(shapes, Watch(self._say)), made)

    def _times(self, shapes: Sequence[Shape], watch: Watch) -> list[float]:
        """The times of networks, of the original's, in the way in which they will ship."""
        quickly = tuple(
            replace(method, samples=PROBED_SAMPLES) if isinstance(method, Quantize) else method
            for method in self.route.scheme
        )
        candidates = [self.route.way.candidate(*shape.passes, *quickly) for shape in shapes]
        return [latency.ratio for latency in self.study.evaluator.probe(candidates, watch)]

    def _say(self, line: str, share: float = 0.0) -> None:
        """Show what is being learnt; ends it once its time is over."""
        self.study.watch.say(line, share)
        if self.study.schedule.spent() > self._end:
            raise _LateError

    def _found(self, ladder: Ladder) -> list[Step]:
        """The steps of a ladder, as many as there is time for, and at least one."""
        steps: list[Step] = []
        try:
            for step in ladder.steps(self._say):
                steps.append(step)
        except _LateError:
            if not steps:
                raise
        return steps

    # ---- tuning

    def run(self) -> Asking:
        """Tune what should keep the budget; what came of it corrects what is expected next."""
        before = self.route.trial.drop
        assert before is not None
        self.recovery.floor = max(0.0, before.drop)
        margin = before.bound - before.drop
        over: list[tuple[float, Step]] = []
        for turn, share in enumerate(SHARES):
            training = self._next(turn, share, margin)
            if training is None:
                break
            trial = yield from self._tuned(training)
            if trial.drop is not None:
                margin = max(margin, trial.drop.bound - trial.drop.drop)
            if trial.status != Status.OVER_BUDGET:
                self.done.add(training.step)
            elif trial.drop is not None:
                over.append((trial.drop.drop, training.step))
        near = [pair for pair in over if pair[1] not in self.done]
        drop, step = min(near, key=lambda pair: pair[0], default=(math.inf, None))
        if step is not None and drop <= self.study.max_drop + NEAR and self.route.scheme:
            yield from self._with_rounding(step)

    def _next(self, turn: int, share: float, margin: float) -> Training | None:
        """What to train next, and for how long.

        A resumed fit gives the same answer, if that training was finished.
        """
        name = f"{self._name}, training {turn}"
        known = self.study.ledger.recall(name)
        if known is not None:
            step = self.steps[known["step"]]
            tuning = self.study.tuning(known["epochs"])
            if self.study.is_trained(*self._passes(step), tuning) or self._endless:
                return Training(step, known["epochs"])
        chosen = self._pick(margin)
        training = None if chosen is None else self._planned(chosen, self._passes(chosen), share)
        if training is not None:
            place = self.steps.index(training.step)
            self.study.ledger.remember(name, {"step": place, "epochs": training.epochs})
        return training

    @property
    def _endless(self) -> bool:
        """Whether trainings have a given length, and time never runs out."""
        return self.study.schedule.epochs is not None

    def _pick(self, margin: float) -> Step | None:
        """The fastest network that should keep the budget if it gets all the time that is left; the
        slowest that would be an improvement if none should."""
        answer = self.study.result.answer.latency
        best = 1.0 if answer is None else answer.ratio
        able = [step for step in self.steps if step.time < best and step not in self.done]
        if self._endless:
            able = [step for step in able if step not in self.trained]
        should = [
            step
            for step in able
            if self.recovery.predicted(step.time, step.loss, self._epochs(step)) + margin
            <= self.study.max_drop
        ]
        if should:
            return min(should, key=lambda step: step.time)
        return max(able, key=lambda step: step.time, default=None)

    def _epochs(self, step: Step) -> float:
        """How long a network will have been trained if it gets all the time that is left."""
        before = self.trained[step][1] if step in self.trained else 0.0
        if self.study.schedule.epochs is not None:
            return before + self.study.schedule.epochs
        whole = max(other.time for other in self.steps)
        epoch = self.pace.epoch * (TEACHER + (1 - TEACHER) * step.time / whole)
        return before + min(MOST_EPOCHS, max(0.0, self._left()) / epoch)

    def _left(self) -> float:
        """Seconds for training; what measuring one more file takes is set aside."""
        return self.study.schedule.left() - self.route.trial.seconds

    def _passes(self, step: Step) -> Passes:
        """The passes that have made a network so far."""
        if step in self.trained:
            return self.trained[step][0]
        return (*step.shape.passes, Compensate())

    def _planned(self, step: Step, passes: Passes, share: float) -> Training | None:
        """How long to train a network; None if it can't be trained, or too briefly to be of use."""
        seconds = share * self._left()
        if seconds < self.pace.least and not self._endless:
            return None
        try:
            return Training(step, *self.study.length_of(seconds, *passes))
        except PenjingError as error:
            self.study.note(f"{step.shape}: it can't be trained: {in_one_line(error)}")
            return None

    def _tuned(self, training: Training) -> Asked:
        """Train a network, and measure its file."""
        step = training.step
        before = self.trained[step][1] if step in self.trained else 0.0
        epochs = before + training.epochs
        passes = (*self._passes(step), self.study.tuning(training.epochs))
        longer = f" tuned longer ({epochs:.3g} epochs)" if before else ""
        expected = self.recovery.predicted(step.time, step.loss, epochs)
        trial = yield from self._asked(f"{self._title(step)}{longer}", passes, (), training)
        self.trained[step] = passes, epochs
        if trial.drop is not None:
            tuned = Tuned(step.time, step.loss, epochs, trial.drop.drop)
            self.recovery.seen.append(tuned)
            self.study.note(
                f"{trial.title} ({step.shape}; {epochs:.3g} epochs) was expected to lose "
                f"{expected:.2f} points and lost {tuned.drop:.2f}"
            )
        return trial

    def _with_rounding(self, step: Step) -> Asking:
        """Train a network with its rounding in place, which is over the budget, but near it."""
        passes = self.trained[step][0]
        name = f"{self._name}, step {self.steps.index(step)} with rounding"
        known = self.study.ledger.recall(name)
        training = self._planned(step, (*passes, *self.route.scheme), 1.0)
        if known is not None and (training is None or not self._endless):
            training = Training(step, known, training.seconds if training else None)
        if training is None:
            return
        self.study.ledger.remember(name, training.epochs)
        usual = self.study.tuning(training.epochs)
        gently = replace(usual, options=replace(usual.options, lr=GENTLY * usual.options.lr))
        title = f"{self._title(step)} trained with its rounding"
        yield from self._asked(title, passes, (gently,), training)

    def _asked(self, title: str, passes: Passes, behind: Passes, training: Training) -> Asked:
        recipe = (*passes, *self.route.scheme, *behind)
        proposal = self.study.proposal(
            f"{title}{self.route.label}", *recipe, way=self.route.way, must=True
        )
        (trial,) = yield [replace(proposal, seconds=training.seconds)]
        return trial

    def _title(self, step: Step) -> str:
        """What its files are called, by its time, which is measured for that."""
        name = f"{self._name}, time of step {self.steps.index(step)}"
        time = self.study.ledger.recall(name)
        if time is None:
            (time,) = self._times([step.shape], self.study.watch)
            self.study.ledger.remember(name, time)
        return f"cut to {100 * time:.1f} %"


def _notes(model: TimeModel, steps: Sequence[Step]) -> list[str]:
    """How well times and losses are predicted."""
    notes = []
    if model.errors:
        notes.append(
            f"the model of times is at most {max(map(abs, model.errors)):.1%} off for "
            f"{len(model.errors)} networks that it wasn't made from"
        )
    off = [abs(step.expected - step.loss) for step in steps]
    notes.append(
        f"losses of {len(steps)} networks, as the sum of what their parts lose, are "
        f"{sum(off) / len(off):.3f} off on average; they lose up to "
        f"{max(step.loss for step in steps):.3f}"
    )
    return notes


class _LateError(Exception):
    """The time for learning what parts cost is over."""
