"""Descent: the second half of `joint`, from what the parts of a network cost to the tuned files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from penjing.contract import Json
from penjing.errors import InputError
from penjing.network import Network
from penjing.passes import Compensate, Quantize
from penjing.search.predict.ladder import Ladder, Parts, Step
from penjing.search.predict.learning import learnt
from penjing.search.predict.recovery import Recovery, Tuned
from penjing.search.predict.shape import Shape
from penjing.search.predict.times import TimeModel
from penjing.search.strategies.cutting import MOST_EPOCHS
from penjing.search.strategies.rounding import Asked, Asking, Passes, Rounding
from penjing.search.study import Study
from penjing.trials.contract import Pace
from penjing.trials.recipe import to_json
from penjing.trials.trial import Status, Trial

SHARES = (0.25, 0.4, 1.0)
"""Of the time that is left, what each training may take."""
TURNS = len(SHARES) + 1
"""How many files are tuned at most, the one trained with its rounding included."""
LEARNING_SHARE = 0.3
"""Of the time that is left, what the losses of parts may take."""
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


@dataclass
class Descent:
    """Learns what the parts of a network cost, and tunes the fastest network that should keep the
    budget.

    Attributes:
        study: the fit.
        rounding: the chosen quantization scheme, and the runtime in which the search goes on.
        pace: how fast the original trains.
        steps: networks of less and less time, each with its measured time, of the original's.
        recovery: what is known of how much tuning makes up for.
    """

    study: Study
    rounding: Rounding
    pace: Pace
    steps: list[tuple[Step, float]] = field(default_factory=list)
    recovery: Recovery = field(default_factory=Recovery)
    trained: dict[Step, tuple[Passes, float]] = field(default_factory=dict)

    def prepare(self) -> str:
        """Learn what parts cost, and choose networks; the reason if that can't work, else empty."""
        known = self.study.ledger.recall(self._name)
        if known is None:
            known = self._learnt()
            self.study.ledger.remember(self._name, known)
        self.steps = [(Step.from_json(data), data["measured"]) for data in known["steps"]]
        if known["note"]:
            self.study.note(known["note"])
        return str(known["why"])

    @property
    def _name(self) -> str:
        """What is remembered holds for one runtime, precision and scheme."""
        return f"ladder of {self.rounding.way.candidate(*self.rounding.recipe).key}"

    def _learnt(self) -> dict[str, Json]:
        nothing: dict[str, Json] = {"why": "", "note": "", "steps": []}
        network = self.study.evaluator.made((), self.study.watch)
        parts = Parts(network, self.study.target.width_multiple)
        if not parts.changes(Shape()):
            return nothing | {"why": "the network has no block or axis that can be cut"}
        try:
            model = self._model(network, parts)
            model.require_additive()
        except InputError as error:
            return nothing | {"why": str(error)}
        worst = max(map(abs, model.errors), default=0.0)
        note = (
            f"the model of times is at most {worst:.1%} off for {len(model.errors)} networks that "
            "it wasn't made from"
        )
        ladder = Ladder(
            network, self.study.evaluator.blind, model, self.study.target.width_multiple, SAMPLES
        )
        steps = self._found(ladder)
        if not steps:
            return nothing | {"why": "there is too little time to measure what its parts lose"}
        times = self._times([step.shape for step in steps])
        rows = [
            step.to_json() | {"measured": time} for step, time in zip(steps, times, strict=True)
        ]
        return {"why": "", "note": note, "steps": rows}

    def _model(self, network: Network, parts: Parts) -> TimeModel:
        """A model of times in the way in which the files will ship."""
        study = self.study

        def made(shape: Shape) -> Network:
            return study.evaluator.made(to_json(shape.passes), study.watch)

        return learnt(network, parts, self._times, made)

    def _times(self, shapes: Sequence[Shape]) -> list[float]:
        """The times of networks, of the original's, in the way in which they will ship."""
        quickly = tuple(
            replace(method, samples=PROBED_SAMPLES) if isinstance(method, Quantize) else method
            for method in self.rounding.recipe
        )
        candidates = [self.rounding.way.candidate(*shape.passes, *quickly) for shape in shapes]
        latencies = self.study.evaluator.probe(candidates, self.study.watch)
        return [latency.ratio for latency in latencies]

    def _found(self, ladder: Ladder) -> list[Step]:
        """The steps of a ladder, as many as there is time for."""
        schedule = self.study.schedule
        end = schedule.spent() + LEARNING_SHARE * schedule.left()
        steps: list[Step] = []

        def say(line: str, share: float) -> None:
            self.study.watch.say(line, share)
            if schedule.spent() > end:
                raise _LateError

        try:
            for step in ladder.steps(say):
                steps.append(step)
        except _LateError:
            pass
        return steps

    # ---- tuning

    def run(self) -> Asking:
        """Tune what should keep the budget; what came of it corrects what is expected next."""
        rounded = self.rounding.trial
        assert rounded is not None
        assert rounded.drop is not None
        self.recovery.floor = max(0.0, rounded.drop.drop)
        margin = rounded.drop.bound - rounded.drop.drop
        last: tuple[Step, Trial] | None = None
        for turn, share in enumerate(SHARES):
            training = self._next(turn, share, margin)
            if training is None:
                break
            trial = yield from self._tuned(training)
            if trial.drop is not None:
                margin = max(margin, trial.drop.bound - trial.drop.drop)
                last = training.step, trial
        if last is not None:
            yield from self._with_rounding(*last)

    def _next(self, turn: int, share: float, margin: float) -> Training | None:
        """What to train next, and for how long; the same again in a fit that is resumed."""
        name = f"{self._name}, training {turn}"
        known = self.study.ledger.recall(name)
        if known is not None:
            return Training(self.steps[known["step"]][0], known["epochs"])
        step = self._pick(margin)
        if step is None or (self.study.schedule.epochs is not None and step in self.trained):
            return None
        training = self._planned(step, self._passes(step), share)
        if training is not None:
            place = [other for other, _ in self.steps].index(step)
            self.study.ledger.remember(name, {"step": place, "epochs": training.epochs})
        return training

    def _pick(self, margin: float) -> Step | None:
        """The fastest network that should keep the budget if it gets all the time that is left; the
        slowest if none should."""
        answer = self.study.result.answer.latency
        best = 1.0 if answer is None else answer.ratio
        able = [step for step, time in self.steps if time < best or step in self.trained]
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
        whole = max(other.time for other, _ in self.steps)
        epoch = self.pace.epoch * (TEACHER + (1 - TEACHER) * step.time / whole)
        return before + min(MOST_EPOCHS, max(0.0, self._left()) / epoch)

    def _left(self) -> float:
        """Seconds for training; what measuring one more file takes is set aside."""
        rounded = self.rounding.trial
        return self.study.schedule.left() - (0.0 if rounded is None else rounded.seconds)

    def _passes(self, step: Step) -> Passes:
        """The passes that have made a network so far."""
        if step in self.trained:
            return self.trained[step][0]
        return (*step.shape.passes, Compensate())

    def _planned(self, step: Step, passes: Passes, share: float) -> Training | None:
        """How long to train a network; None if that is too short to be of use."""
        if self.study.schedule.epochs is not None:
            return Training(step, self.study.schedule.epochs)
        begin = self.study.schedule.spent()
        seconds = share * self._left()
        if seconds < self.pace.least:
            return None
        pace = self.study.pace(*passes)
        seconds = max(seconds - (self.study.schedule.spent() - begin), pace.step)
        epochs = min(MOST_EPOCHS, max(seconds / pace.epoch, 1 / pace.steps))
        return Training(step, round(epochs, 2) or epochs, seconds)

    def _tuned(self, training: Training) -> Asked:
        """Train a network, and measure its file."""
        step = training.step
        before = self.trained[step][1] if step in self.trained else 0.0
        passes = (*self._passes(step), self.study.tuning(training.epochs))
        longer = " tuned longer" if step in self.trained else ""
        expected = self.recovery.predicted(step.time, step.loss, before + training.epochs)
        trial = yield from self._asked(f"{self._title(step)}{longer}", passes, (), training)
        self.trained[step] = passes, before + training.epochs
        if trial.drop is not None:
            tuned = Tuned(step.time, step.loss, before + training.epochs, trial.drop.drop)
            self.recovery.seen.append(tuned)
            self.study.note(
                f"{trial.title} ({step.shape}; {tuned.epochs:.3g} epochs) was expected to lose "
                f"{expected:.2f} points and lost {tuned.drop:.2f}"
            )
        return trial

    def _with_rounding(self, step: Step, trial: Trial) -> Asking:
        """Train with the rounding in place, if the file is over the budget, but near it."""
        drop = trial.drop
        if trial.status != Status.OVER_BUDGET or drop is None:
            return
        if drop.drop > self.study.max_drop + NEAR:
            return
        name = f"{self._name}, training with rounding"
        known = self.study.ledger.recall(name)
        passes = self.trained[step][0]
        if known is not None:
            training: Training | None = Training(step, known["epochs"])
        else:
            training = self._planned(step, (*passes, *self.rounding.recipe), 1.0)
        if training is None:
            return
        self.study.ledger.remember(name, {"epochs": training.epochs})
        usual = self.study.tuning(training.epochs)
        gently = replace(usual, options=replace(usual.options, lr=GENTLY * usual.options.lr))
        title = f"{self._title(step)} trained with its rounding"
        yield from self._asked(title, passes, (gently,), training)

    def _asked(self, title: str, passes: Passes, behind: Passes, training: Training) -> Asked:
        recipe = (*passes, *self.rounding.recipe, *behind)
        named = f"{title} + {self.rounding.label}"
        proposal = self.study.proposal(named, *recipe, way=self.rounding.way, must=True)
        (trial,) = yield [replace(proposal, seconds=training.seconds)]
        return trial

    def _title(self, step: Step) -> str:
        return f"cut to {100 * dict(self.steps)[step]:.0f} %"


@dataclass(frozen=True)
class Training:
    """A network to train, for so many epochs, and no longer than so many seconds."""

    step: Step
    epochs: float
    seconds: float | None = None


class _LateError(Exception):
    """The time for learning what parts lose is over."""
