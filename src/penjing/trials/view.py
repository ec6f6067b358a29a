"""View: what the events of a ledger amount to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from penjing.contract import Drop, Json, Latency
from penjing.trials.candidate import Candidate
from penjing.trials.judgement.choice import choose, with_pareto
from penjing.trials.judgement.promise import Promise
from penjing.trials.judgement.verdicts import verdicts
from penjing.trials.layers import Layers
from penjing.trials.prediction import Prediction
from penjing.trials.result import Result, with_new_names
from penjing.trials.trial import Status, Trial

PROVEN = ("best", "reason", "test_score", "test_baseline", "test_evaluations", "notes")
"""The fields of a result that the test data decides."""
INTERRUPTED = (
    "interrupted: all that was finished by then is kept, and the test data was not used; `resume` "
    "continues"
)


@dataclass
class View:
    """A result that grows with each event.

    Attributes:
        begun: the result before anything was measured.
        known: the newest trial of each candidate, by key, in the order of the rows.
        proposed: all candidates that were begun.
        replaced: the keys of those whose row another trial has taken.
        remembered: what took long to find, by name.
        predictions: what was expected of candidates.
        layers: of the original and the answer; empty before that is certain.
        proven: what the test data said; None before it was used.
        delivered: whether the answer's file, `artifact`, lies beside `result.json`.
    """

    begun: Result
    known: dict[str, Trial] = field(default_factory=dict)
    replaced: set[str] = field(default_factory=set)
    proposed: list[Candidate] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    files: tuple[str, ...] = ()
    promise: Promise | None = None
    remembered: dict[str, Json] = field(default_factory=dict)
    predictions: list[Prediction] = field(default_factory=list)
    layers: Layers = field(default_factory=Layers)
    interrupted: bool = False
    proven: Mapping[str, Json] | None = None
    delivered: bool = False
    artifact: str | None = None
    _result: Result | None = None

    @property
    def result(self) -> Result:
        """With the choice, the marks and the verdicts that follow from the trials."""
        if self._result is None:
            self._result = self._seen()
        return self._result

    def _seen(self) -> Result:
        rows = [trial for key, trial in self.known.items() if key not in self.replaced]
        marked = with_pareto([self._explained(trial) for trial in rows])
        own = self.begun.baseline
        baseline = next((trial for trial in marked if trial.key == own.key), own)
        trials = [trial for trial in marked if trial.key != own.key]
        best, why = choose(baseline, trials, self.begun.aim)
        notes = (*self.notes, *([INTERRUPTED] if self.interrupted else []))
        result = replace(
            self.begun, baseline=baseline, trials=tuple(trials), best=best.key, reason=why,
            notes=notes, files=self.files, artifact=self.artifact or best.artifact,
            predictions=tuple(self.predictions), layers=self.layers,
        )  # fmt: skip
        if self.promise is not None:
            result = replace(result, certified_by=self.promise.certified_by)
        if self.proven is not None:
            result = self._with_proof(result, self.proven)
        return replace(result, verdicts=verdicts(result))

    def _with_proof(self, result: Result, proven: Mapping[str, Json]) -> Result:
        proven = with_new_names(proven)
        told = {name: proven[name] for name in PROVEN} | {"notes": tuple(proven["notes"])}
        rows = [(trial, proven["rows"].get(trial.key)) for trial in result.trials]
        trials = tuple(
            replace(trial, status=Status(row[0]), reason=row[1]) if row else trial
            for trial, row in rows
        )
        drop = Drop(**proven["test_drop"]) if proven["test_drop"] else None
        result = replace(result, trials=trials, test_drop=drop, **told)
        artifact = self.artifact or result.answer.artifact
        return replace(result, artifact=artifact, finished=self.delivered)

    def _explained(self, trial: Trial) -> Trial:
        """A trial that went no further, with a reason if it has none."""
        if trial.status != Status.NOT_TUNED or trial.reason:
            return trial
        why = "the fit was interrupted before" if self.interrupted else "no time was left for more"
        return replace(trial, reason=why)

    def take(self, kind: str, data: Any) -> None:
        """Take one more event. Some events undo what was decided on the trials before."""
        if kind in UNDECIDED:
            self.interrupted, self.proven = False, None
            self.delivered, self.artifact = False, None
            self.layers = Layers()
        EVENTS[kind](self, data)
        self._result = None

    def add(self, data: Mapping[str, Json]) -> None:
        """Add a trial. It replaces an earlier one of its candidate, or the one that it names."""
        trial = Trial.from_json(data)
        place = trial.key if trial.key in self.known else trial.replaces
        if place in self.known and place != trial.key:
            self.replaced.add(place)
            rows = list(self.known.items())
            at = [key for key, _ in rows].index(place)
            self.known = dict([*rows[:at], (trial.key, trial), *rows[at:]])
        else:
            self.known[trial.key] = trial

    def amend(self, data: Mapping[str, Json]) -> None:
        """Change a status or a reason."""
        changes = {name: data[name] for name in ("status", "reason") if name in data}
        if "status" in changes:
            changes["status"] = Status(changes["status"])
        self.known[data["key"]] = replace(self.known[data["key"]], **changes)

    def time(self, data: Mapping[str, Json]) -> None:
        """Take new latencies. An unreliable one never replaces a reliable one."""
        for key, figures in data.items():
            trial, latency = self.known[key], Latency(**figures)
            if latency.disturbed and not (trial.latency or latency).disturbed:
                continue
            measured = replace(trial.measurement, latency=latency)
            self.known[key] = replace(trial, measurement=measured)

    def say(self, text: str) -> None:
        """Add a note, unless it is there already."""
        if text and text not in self.notes:
            self.notes.append(text)

    def remember(self, data: Mapping[str, Json]) -> None:
        """Keep plain data under a name."""
        self.remembered[data["name"]] = data["value"]

    def predict(self, data: Mapping[str, Json]) -> None:
        """Take what was expected of a candidate."""
        self.predictions.append(Prediction(**data))

    def describe(self, data: Mapping[str, Json]) -> None:
        """Take what became of each layer."""
        self.layers = Layers.from_json(data)

    def promised(self, data: Mapping[str, Json]) -> None:
        """Take which data certifies."""
        self.promise = Promise(**data)
        self.say(self.promise.note)

    def deliver(self, data: Mapping[str, Json]) -> None:
        """The answer's file lies beside the result."""
        self.delivered, self.artifact = True, data["artifact"]
        self.files = tuple(data["files"])

    def interrupt(self, _: Mapping[str, Json]) -> None:
        """The fit was stopped before its end."""
        self.interrupted = True

    def prove(self, data: Mapping[str, Json]) -> None:
        """What the test data said."""
        self.proven, self.interrupted = data, False

    def propose(self, data: Mapping[str, Json]) -> None:
        """A candidate was begun."""
        self.proposed.append(Candidate.from_json(data))

    def own(self, data: Mapping[str, Json]) -> None:
        """Take the names of penjing's files beside the result."""
        self.files = tuple(data["files"])

    def note(self, data: Mapping[str, Json]) -> None:
        """Add a line that the user should read."""
        self.say(data["text"])

    def go_on(self, _: Mapping[str, Json]) -> None:
        """The fit was resumed."""


EVENTS: Mapping[str, Callable[[View, Any], None]] = {
    "amended": View.amend,
    "delivered": View.deliver,
    "files": View.own,
    "interrupted": View.interrupt,
    "layers": View.describe,
    "note": View.note,
    "predicted": View.predict,
    "promise": View.promised,
    "proposed": View.propose,
    "proven": View.prove,
    "remembered": View.remember,
    "resumed": View.go_on,
    "timed": View.time,
    "trial": View.add,
}
UNDECIDED = ("amended", "resumed", "timed", "trial")
"""Events that undo an earlier decision, since other trials may follow."""


def view_of(events: Iterable[tuple[str, Any]]) -> View:
    """The view of these events, the first of which began the fit."""
    view: View | None = None
    for kind, data in events:
        if view is None:
            begun = Result.from_json(data)
            view = View(begun, notes=list(begun.notes), files=begun.files)
        else:
            view.take(kind, data)
    assert view is not None
    return view
