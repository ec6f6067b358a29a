"""Result: the baseline, every candidate's trial, the answer, and the reasons. A view of the ledger,
written as `result.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from penjing.contract import POINTS, Drop, Json
from penjing.errors import InputError, in_one_line
from penjing.files import read_regular, write_atomically
from penjing.strict_json import parse
from penjing.trials.judgement.aim import Aim
from penjing.trials.layers import Layers
from penjing.trials.prediction import Prediction
from penjing.trials.trial import Trial

FORMAT = 5
RECORD = "result.json"
REPORT = ("report.md", "plot.png", "report.html")
OF_FORMAT_1 = ("report.md", "plot.png")
"""The report of a folder whose result doesn't tell its files."""
OLD_NAMES = {"test_looks": "test_evaluations"}
"""By their names before format 4, fields of results and ledgers that have other names now."""


@dataclass(frozen=True)
class Result:
    """What a fit found; `finished` is False while it runs and after it was interrupted.

    >>> import penjing
    >>> penjing.Result.load(Path("fitted-yesterday"))
    Traceback (most recent call last):
    penjing.errors.InputError: fitted-yesterday/result.json can't be read: FileNotFoundError: ...

    Attributes:
        baseline: the original in the target's first runtime that holds floats.
        trials: of all other candidates, a row for each.
        best: the key of the answer; the baseline's if nothing better keeps the budget.
        judged_on: the processor on which accuracies were found, and its instructions.
        verdicts: whether each method is worth it on this target, a line each, from measured
            figures.
        reason: why it is the answer, as it continues "... is the answer:".
        artifact: path of its file within the result's folder.
        test_score, test_baseline, test_drop: on the test data, at the end; no drop where the
            original is the answer.
        test_evaluations: how many candidates were tested, see `certify.prove`.
        certified_by: the data whose bound decides that a file may be delivered, `"test"` or
            `"validation"`, see `promise_of`.
        identity: hashes of what it was begun with, see `penjing.search.identity`.
        files: the names of what penjing wrote, or is about to write, beside `result.json`.
        unit: of the budget and of all losses, see `penjing.Metric`.
        max_ms, max_kb: the longest time and the largest file that were allowed; None for any.
        estimated_in: the unit of what stands for the time on a target that isn't here; empty where
            time was measured.
        predictions: what was expected of candidates before they were made; of those measured.
        layers: of the original and of the answer; empty before the end, and in older results.
    """

    task: str
    target: str
    machine: str
    goal: str
    max_drop: float
    confidence: float
    seed: int
    versions: Mapping[str, str]
    baseline: Trial
    trials: tuple[Trial, ...] = ()
    best: str = ""
    reason: str = ""
    artifact: str | None = None
    test_score: float | None = None
    test_baseline: float | None = None
    test_drop: Drop | None = None
    test_evaluations: int = 0
    notes: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ()
    judged_on: Mapping[str, Json] = field(default_factory=dict)
    finished: bool = False
    certified_by: str = "test"
    identity: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    max_ms: float | None = None
    max_kb: float | None = None
    estimated_in: str = ""
    predictions: tuple[Prediction, ...] = ()
    layers: Layers = field(default_factory=Layers)
    unit: str = POINTS

    @property
    def aim(self) -> Aim:
        """What the fit was asked for."""
        return Aim(self.goal, self.max_drop, self.max_ms, self.max_kb)

    @property
    def point(self) -> float:
        """What is about as much as a point of accuracy, in the metric's unit: with one of its own,
        the budget."""
        return 1.0 if self.unit == POINTS else self.max_drop or 1.0

    @property
    def everything(self) -> tuple[Trial, ...]:
        """The baseline and all other trials."""
        return (self.baseline, *self.trials)

    @property
    def answer(self) -> Trial:
        """The trial of the answer."""
        return self.trial(self.best) or self.baseline

    @property
    def chosen(self) -> str:
        """The title of the answer, `"original"` if nothing better keeps the budget."""
        return self.answer.title

    def named(self, trial: Trial) -> str:
        """The title of a trial; the baseline's with its runtime, if several were tried."""
        several = len({other.runtime for other in self.everything}) > 1
        if several and trial.key == self.baseline.key:
            return f"{trial.title} in {trial.runtime}"
        return trial.title

    def trial(self, key: str) -> Trial | None:
        """The trial of the candidate with that key; None if there is none yet."""
        return next((trial for trial in self.everything if trial.key == key), None)

    def find(self, title: str) -> Trial:
        """The trial whose row has that title."""
        return next(trial for trial in self.everything if trial.title == title)

    def to_json(self) -> dict[str, Json]:
        """Plain data, the inverse of `from_json`."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        plain |= {name: list(getattr(self, name)) for name in _LISTS}
        plain |= {name: dict(getattr(self, name)) for name in _MAPPINGS}
        drop = None if self.test_drop is None else asdict(self.test_drop)
        rows = [trial.to_json() for trial in self.trials]
        return {
            "format": FORMAT, "chosen": self.chosen, **plain, "test_drop": drop,
            "baseline": self.baseline.to_json(), "candidates": rows,
            "predictions": list(map(asdict, self.predictions)), "layers": self.layers.to_json(),
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Result:
        """Read a result that `to_json` wrote, of this format or an earlier one.

        Raises:
            InputError: a newer penjing wrote it.
        """
        if data["format"] > FORMAT:
            raise InputError(f"format {data['format']}, this penjing reads {FORMAT}: upgrade it")
        data = with_new_names(data)
        plain = {name: data[name] for name in _PLAIN if name in data}
        plain |= {name: tuple(data[name]) for name in _LISTS if name in data}
        plain |= {name: dict(data[name]) for name in _MAPPINGS if name in data}
        if "files" not in data:  # of format 1, which didn't tell
            plain["files"] = (*OF_FORMAT_1, data["artifact"])
        plain["predictions"] = tuple(Prediction(**row) for row in data.get("predictions", ()))
        if "layers" in data:
            plain["layers"] = Layers.from_json(data["layers"])
        trials = tuple(Trial.from_json(row) for row in data["candidates"])
        baseline = Trial.from_json(data["baseline"])
        if "best" not in data:  # before format 3 the titles were names
            rows = (baseline, *trials)
            plain["best"] = next(
                (trial.key for trial in rows if trial.title == data["chosen"]), "none"
            )
        drop = Drop(**data["test_drop"]) if data["test_drop"] else None
        return cls(baseline=baseline, trials=trials, test_drop=drop, **plain)

    def save(self, folder: Path) -> None:
        """Write `result.json`, whole or not at all."""
        text = json.dumps(self.to_json(), indent=1, allow_nan=False)
        write_atomically(folder / RECORD, text)

    @classmethod
    def load(cls, folder: Path) -> Result:
        """Read a folder's `result.json`.

        Raises:
            InputError: there is none, or it isn't penjing's.
        """
        path = folder / RECORD
        try:
            result = cls.from_json(parse(read_regular(path), str(path)))
            require_within(result)
            return result
        except (OSError, ValueError, KeyError, TypeError, AttributeError, InputError) as error:
            raise InputError(f"{path} can't be read: {in_one_line(error)}") from error


_PLAIN = (
    "task", "target", "machine", "goal", "max_drop", "confidence", "seed", "best", "reason",
    "artifact", "test_score", "test_baseline", "test_evaluations", "finished", "certified_by",
    "max_ms", "max_kb", "estimated_in", "unit",
)  # fmt: skip
_LISTS = ("notes", "verdicts", "files")
_MAPPINGS = ("versions", "judged_on", "identity")


def with_new_names(data: Mapping[str, Json]) -> Mapping[str, Json]:
    """The data with the names of fields as they are since format 4."""
    return {OLD_NAMES.get(name, name): value for name, value in data.items()}


def require_within(result: Result) -> None:
    """Raise ValueError unless names of files stay in the folder, and the answer is there."""
    if result.best and result.trial(result.best) is None:
        raise ValueError("its chosen candidate isn't among its candidates")
    for path in (result.artifact, *(trial.artifact for trial in result.everything)):
        if path is not None and (Path(path).is_absolute() or ".." in Path(path).parts):
            raise ValueError(f"{path!r} is no file of its folder")
