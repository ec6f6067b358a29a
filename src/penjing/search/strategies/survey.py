"""Survey: what the parts of a network cost and save, and networks that cost less and less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from penjing.contract import Json
from penjing.errors import ONE_CANDIDATES, in_one_line, is_one_candidates
from penjing.network import Network
from penjing.passes import Gptq, MixedPrecision, Quantize
from penjing.search.predict.cost import SUMS, Cost, sums_of
from penjing.search.predict.ladder import LISTED, Ladder, Step
from penjing.search.predict.learning import checked, learnt
from penjing.search.predict.parts import EVERY, Cuts, Parts
from penjing.search.predict.shape import Shape
from penjing.search.strategies.route import Route
from penjing.search.study import Study
from penjing.trials.contract import Probed, Say, Watch
from penjing.trials.judgement.goal import mean_of, weights_of
from penjing.trials.judgement.wording import listed
from penjing.trials.recipe import to_json

SHARE = 0.3
"""Of the time that is left, what a survey may take."""
SAMPLES = 512
"""Training samples on which losses are measured."""
TELLING = 0.15
"""So much must be done until its pace tells how long the rest takes."""
PROBED_SAMPLES = 16
"""Calibration samples of a file whose accuracy isn't measured."""


@dataclass
class Survey:
    """Measures what parts cost in the way in which the files will ship, without training.

    Attributes:
        study: the fit.
        route: the runtime, the precision and the rounding of all files.
        cuts: which kinds of parts may go.
        steps: networks that cost less and less, once `run` has found them.
    """

    study: Study
    route: Route
    cuts: Sequence[Cuts] = EVERY
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
                return "there is too little time to learn what the network's parts cost"
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
        """Under which the ledger remembers; what is learnt holds for one route and these cuts."""
        return f"networks cut from {self.route.candidate.key} by {' and '.join(self.cuts)}"

    def share_of(self, step: Step) -> float:
        """What a step's file takes of the original's, measured."""
        name = f"{self.name}, share of step {self.steps.index(step)}"
        known = self.study.ledger.recall(name)
        if known is None:
            (probed,) = self._probed([step.shape], self.study.watch)
            known = mean_of(self.study.goal, probed.shares)
            self.study.ledger.remember(name, known)
        return float(known)

    def _learnt(self) -> dict[str, Json]:
        network = self.study.evaluator.made((), self.study.watch)
        parts = Parts(network, self.study.target.width_multiple, self.cuts)
        if not parts.changes(Shape()):
            why = f"the network has no {listed(self.cuts)} that can be cut"
            return {"why": why, "notes": [], "steps": []}
        cost, said = self._cost(parts)
        steps = self._found(Ladder(network, self.study.evaluator.blind, cost, parts, SAMPLES))
        if not steps:
            why = "no part of the network can be cut that saves anything"
            return {"why": why, "notes": [], "steps": []}
        rows = [step.to_json() for step in steps]
        return {"why": "", "notes": [*said, *_notes(cost, steps)], "steps": rows}

    def _cost(self, parts: Parts) -> tuple[Cost, list[str]]:
        """What networks cost in the way in which the files will ship, and what to note about that.
        What an earlier fit learnt is only checked."""
        study, name = self.study, f"{self.name}, their cost"
        settled = study.ledger.recall(name)
        if settled is not None:
            return Cost.from_json(settled["cost"]), settled["notes"]

        def made(shape: Shape) -> Network:
            recipe = to_json(shape.passes_without_data)
            return study.evaluator.made(recipe, Watch(self._until(0.0)))

        def probing(shapes: Sequence[Shape]) -> list[Probed]:
            return self._probed(shapes, Watch(self._until(1.0)))

        of, notes = self._subject(made(Shape())), []
        cost = study.known.recall(of)
        if cost is not None:
            cost = checked(cost, parts, probing, made)
            notes = ["an earlier fit on this machine has learnt what operators cost"]
        if cost is None or not cost.is_additive:
            cost, notes = learnt(parts, study.goal, probing, made), []
            cost.require_additive()
            study.known.remember(of, cost)
        study.ledger.remember(name, {"cost": cost.to_json(), "notes": notes})
        return cost, notes

    def _subject(self, network: Network) -> dict[str, Json]:
        """All that a cost hangs on: machine, versions, way, rounding, goal, and the operators."""
        result, way = self.study.result, self.route.way
        names = {"penjing", result.baseline.runtime, way.runtime.name}
        operators = {
            figure: {kind: values.tolist() for kind, values in sums.items()}
            for figure, sums in sums_of(network, self.study.goal).items()
        }
        return {
            "machine": result.machine,
            "processor": dict(result.judged_on),
            "estimated in": result.estimated_in,
            "versions": {name: result.versions.get(name) for name in sorted(names)},
            "original": result.baseline.candidate.to_json(),
            "way": [way.runtime.name, way.floats],
            "rounding": to_json(self.route.scheme),
            "goal": self.study.goal,
            "cuts": list(self.cuts),
            "multiple": self.study.target.width_multiple,
            "operators": operators,
        }

    def _probed(self, shapes: Sequence[Shape], watch: Watch) -> list[Probed]:
        """What the files of networks take, in the way in which they will ship."""
        quickly = tuple(
            replace(method, samples=PROBED_SAMPLES)
            if isinstance(method, Quantize | MixedPrecision)
            else method
            for method in self.route.scheme
            if not isinstance(method, Gptq)  # which changes neither time nor bytes
        )
        candidates = [
            self.route.way.candidate(*shape.passes_without_data, *quickly) for shape in shapes
        ]
        timed = "latency" in weights_of(self.study.goal)
        return self.study.evaluator.probe(candidates, watch, timed)

    def _until(self, needed: float) -> Say:
        """What shows people what is being learnt. It ends that once its time is over, or as soon as
        the pace tells that the share which is needed won't be done by then."""
        begin = self.study.schedule.spent()

        def say(line: str, share: float = 0.0, /) -> None:
            self.study.watch.say(line, share)
            now = self.study.schedule.spent()
            done = begin + needed * (now - begin) / share if share >= TELLING else now
            if max(now, done) > self._end:
                raise _LateError

        return say

    def _found(self, ladder: Ladder) -> list[Step]:
        """The steps of a ladder, as many as there is time for, and at least one."""
        steps: list[Step] = []
        try:
            for step in ladder.steps(self._until(LISTED)):
                steps.append(step)
        except _LateError:
            if not steps:
                raise
        return steps


def _notes(cost: Cost, steps: Sequence[Step]) -> list[str]:
    """How well costs and losses are predicted."""
    notes = [
        f"{SUMS[figure][0]} are predicted with an error of at most "
        f"{max(map(abs, model.errors)):.1%} for {len(model.errors)} networks from which that "
        "wasn't learnt"
        for figure, model in cost.models.items()
        if model.errors
    ]
    off = [abs(step.expected - step.loss) for step in steps]
    notes.append(
        f"losses of {len(steps)} networks, as the sum of what their parts lose, are "
        f"{sum(off) / len(off):.3f} off on average; they lose up to "
        f"{max(step.loss for step in steps):.3f}"
    )
    return notes


class _LateError(Exception):
    """The time for learning what parts cost is over."""
