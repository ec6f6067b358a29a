"""Survey: what the parts of a network cost and save, and networks of less and less time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from penjing.contract import Json
from penjing.errors import ONE_CANDIDATES, in_one_line, is_one_candidates
from penjing.network import Network
from penjing.passes import Quantize
from penjing.search.predict.ladder import Ladder, Step
from penjing.search.predict.learning import learnt
from penjing.search.predict.parts import Parts
from penjing.search.predict.shape import Shape
from penjing.search.predict.times import TimeModel
from penjing.search.strategies.route import Route
from penjing.search.study import Study
from penjing.trials.contract import Watch
from penjing.trials.recipe import to_json

SHARE = 0.3
"""Of the time that is left, what a survey may take."""
SAMPLES = 512
"""Training samples on which losses are measured."""
PROBED_SAMPLES = 16
"""Calibration samples of a file that is only timed."""


@dataclass
class Survey:
    """Measures what parts cost in the way in which the files will ship, without training.

    Attributes:
        study: the fit.
        route: the runtime, the precision and the rounding of all files.
        steps: networks of less and less time, once `run` has found them.
    """

    study: Study
    route: Route
    steps: list[Step] = field(default_factory=list)
    _end: float = 0.0

    def run(self) -> str:
        """Find the networks; the reason if that can't work, else empty."""
        known = self.study.ledger.recall(self.name)
        if known is None:
            schedule = self.study.schedule
            self._end = schedule.spent() + SHARE * schedule.left()
            try:
                known = self._learnt()
            except _LateError:  # which isn't remembered, since there may be more time next time
                return "there is too little time to learn what its parts cost"
            except ONE_CANDIDATES as error:
                if not is_one_candidates(error):
                    raise
                known = {"why": in_one_line(error), "notes": [], "steps": []}
            self.study.ledger.remember(self.name, known)
        self.steps = [Step.from_json(data) for data in known["steps"]]
        for note in known["notes"]:
            self.study.note(note)
        return str(known["why"])

    @property
    def name(self) -> str:
        """Under which the ledger remembers; what is learnt holds for one route."""
        return f"ladder of {self.route.candidate.key}"

    def time_of(self, step: Step) -> float:
        """The measured time of a step, of the original's."""
        name = f"{self.name}, time of step {self.steps.index(step)}"
        time = self.study.ledger.recall(name)
        if time is None:
            (time,) = self._times([step.shape], self.study.watch)
            self.study.ledger.remember(name, time)
        return float(time)

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
