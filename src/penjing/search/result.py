"""Result: the baseline, every candidate, the chosen one, and the reasons."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from penjing.contract import Drop, Json, Latency, Measurement
from penjing.errors import InputError, in_one_line
from penjing.files import read_regular, write_atomically
from penjing.strict_json import parse

FORMAT = 2
RECORD = "result.json"
REPORT = ("report.md", "plot.png")


@dataclass(frozen=True)
class Candidate:
    """One recipe and what its file measured.

    Attributes:
        recipe: the passes, in order, as JSON.
        status: `"kept"` (within the budget), `"over budget"`, `"not tuned"` (its file was timed,
            and why it went no further is the reason), `"over on test"` (within the budget on
            validation, but test doesn't certify it), `"no gain"` (no faster than what it is a
            variant of), `"failed"` or `"baseline"`.
        reason: why it isn't kept, or what it didn't gain, in one line.
        artifact: path of its file within the result's folder; None if there is none.
        sha256: of its file, or of all its files one behind the other.
        runtime: the name of the runtime that its file is for.
        floats: how its file holds real numbers.
        pareto: no other candidate is better in drop, latency and bytes at once.
    """

    name: str
    recipe: tuple[Json, ...]
    status: str
    reason: str = ""
    measurement: Measurement = field(default_factory=Measurement)
    artifact: str | None = None
    sha256: str | None = None
    seconds: float = 0.0
    runtime: str = "onnxruntime"
    floats: str = "float32"
    pareto: bool = False


@dataclass(frozen=True)
class Result:
    """What a fit found; `finished` is False while it runs and after it was interrupted.

    Attributes:
        judged_on: the processor on which accuracies were found, and its instructions.
        verdicts: whether each method pays on this target, a line each, from measured figures.
        chosen: name of the answer, `"original"` if nothing better keeps the budget.
        reason: why it was chosen.
        artifact: path of the chosen file within the result's folder.
        test_score, test_baseline, test_drop: on the test data, at the end; no drop where the
            original is the answer.
        test_looks: how many candidates were tested, see `looks.prove`.
        certified_by: the data whose bound decides that a file may be delivered, `"test"` or
            `"validation"`, see `promise.promise`.
        identity: hashes of what it was begun with, see `penjing.search.identity`.
        files: the names of what penjing wrote, or is about to write, beside `result.json`.
    """

    task: str
    target: str
    machine: str
    goal: str
    max_drop: float
    confidence: float
    seed: int
    versions: Mapping[str, str]
    baseline: Candidate
    candidates: tuple[Candidate, ...] = ()
    chosen: str = "original"
    reason: str = ""
    artifact: str | None = None
    test_score: float | None = None
    test_baseline: float | None = None
    test_drop: Drop | None = None
    test_looks: int = 0
    notes: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ()
    judged_on: Mapping[str, Json] = field(default_factory=dict)
    finished: bool = False
    certified_by: str = "test"
    identity: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()

    @property
    def everything(self) -> tuple[Candidate, ...]:
        """The baseline and all candidates."""
        return (self.baseline, *self.candidates)

    def find(self, name: str) -> Candidate:
        """The candidate of that name."""
        return next(one for one in self.everything if one.name == name)

    def status(self, name: str) -> str:
        """Of the candidate of that name; empty if there is none yet."""
        return next((one.status for one in self.everything if one.name == name), "")

    def drop(self, name: str) -> float:
        """Points that the candidate, which is measured, loses."""
        found = self.find(name).measurement.drop
        assert found is not None
        return found.drop

    def latency(self, name: str) -> Latency | None:
        """The candidate's; None if it isn't timed."""
        return self.find(name).measurement.latency

    def ratio(self, name: str) -> float:
        """Of the time of the candidate, which is timed, to the original's."""
        found = self.latency(name)
        assert found is not None
        return found.ratio

    def is_faster(self, name: str, rival: str) -> bool:
        """Whether the one is faster than the other beyond doubt; both are timed."""
        mine, theirs = self.latency(name), self.latency(rival)
        assert mine is not None
        assert theirs is not None
        return mine.ratio_high < theirs.ratio_low

    def to_json(self) -> dict[str, Json]:
        """Plain data, the inverse of `from_json`."""
        data = asdict(self) | {"format": FORMAT, "notes": list(self.notes)}
        data |= {"verdicts": list(self.verdicts), "files": list(self.files)}
        data["baseline"] = _candidate_json(self.baseline)
        data["candidates"] = [_candidate_json(one) for one in self.candidates]
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Result:
        """Read a result that `to_json` wrote.

        Raises:
            InputError: a newer penjing wrote it.
        """
        if data["format"] > FORMAT:
            raise InputError(f"format {data['format']}, this penjing reads {FORMAT}: upgrade it")
        rest = {key: value for key, value in data.items() if key != "format"}
        rest["baseline"] = _candidate(data["baseline"])
        rest["candidates"] = tuple(_candidate(one) for one in data["candidates"])
        rest["notes"] = tuple(data["notes"])
        rest["verdicts"] = tuple(data.get("verdicts", ()))
        known = [*REPORT, data["artifact"]]  # of format 1, which didn't tell
        rest["files"] = tuple(data.get("files", known))
        rest["test_drop"] = Drop(**data["test_drop"]) if data["test_drop"] else None
        return cls(**rest)

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
            found = cls.from_json(parse(read_regular(path), str(path)))
            _require_within(found)
            return found
        except (OSError, ValueError, KeyError, TypeError, AttributeError, InputError) as error:
            raise InputError(f"{path} can't be read: {in_one_line(error)}") from error


def _require_within(found: Result) -> None:
    """Raise ValueError unless names of files stay in the folder, and the chosen one is there."""
    if found.chosen not in [one.name for one in found.everything]:
        raise ValueError("its chosen candidate isn't among its candidates")
    for one in (found.artifact, *(candidate.artifact for candidate in found.everything)):
        if one is not None and (Path(one).is_absolute() or ".." in Path(one).parts):
            raise ValueError(f"{one!r} is no file of its folder")


def _candidate_json(one: Candidate) -> dict[str, Json]:
    return asdict(one) | {"measurement": one.measurement.to_json(), "recipe": list(one.recipe)}


def _candidate(data: Mapping[str, Json]) -> Candidate:
    parts = {
        "measurement": Measurement.from_json(data["measurement"]),
        "recipe": tuple(data["recipe"]),
    }
    return Candidate(**{**data, **parts})


def with_pareto(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The candidates with their `pareto` marks set."""
    return tuple(replace(one, pareto=_on_front(one, candidates)) for one in candidates)


def _figures(one: Candidate) -> tuple[float, float, float] | None:
    m = one.measurement
    if m.latency is None or m.drop is None or m.file_bytes is None:
        return None
    return m.drop.drop, m.latency.ratio, float(m.file_bytes)


def _on_front(one: Candidate, others: Sequence[Candidate]) -> bool:
    mine = _figures(one)
    if mine is None:
        return False
    rivals = (figures for other in others if other is not one and (figures := _figures(other)))
    return not any(
        all(a <= b for a, b in zip(rival, mine, strict=True)) and rival != mine for rival in rivals
    )


def choose(
    baseline: Candidate, candidates: Sequence[Candidate], goal: str, max_drop: float
) -> tuple[Candidate, str]:
    """The best of those that keep the budget, and why; the baseline if none is better.

    Candidates whose latency can't be told from the fastest tie, and the smaller file wins.
    """
    kept = [one for one in candidates if one.status == "kept"]
    if not kept:
        return baseline, _nothing_kept(candidates, max_drop)
    if goal == "size":
        best = min(kept, key=lambda one: one.measurement.file_bytes or 0)
        if (best.measurement.file_bytes or 0) >= (baseline.measurement.file_bytes or 0):
            return baseline, "no candidate that keeps the budget is smaller than the original"
        return best, f"the smallest of {len(kept)} that keep the budget"
    timed = [one for one in kept if one.measurement.latency is not None]
    faster = [one for one in timed if one.measurement.latency.verdict == "faster"]  # type: ignore[union-attr]
    if not faster:
        return baseline, "no candidate that keeps the budget is faster than the original"
    fastest = min(faster, key=lambda one: one.measurement.latency.ratio)  # type: ignore[union-attr]
    limit = fastest.measurement.latency.ratio_high  # type: ignore[union-attr]
    ties = [one for one in faster if one.measurement.latency.ratio <= limit]  # type: ignore[union-attr]
    best = min(ties, key=lambda one: one.measurement.file_bytes or 0)
    if len(ties) == 1:
        return best, f"the fastest of {len(kept)} that keep the budget"
    return best, f"the smallest of {len(ties)} whose latency can't be told from the fastest"


def _nothing_kept(candidates: Sequence[Candidate], max_drop: float) -> str:
    measured = [one for one in candidates if one.measurement.drop is not None]
    if not measured:
        return "no candidate was finished"
    nearest = min(measured, key=lambda one: one.measurement.drop.bound)  # type: ignore[union-attr]
    found = nearest.measurement.drop
    assert found is not None
    why = (
        f"nothing keeps the budget of {max_drop:g} points; nearest is {nearest.name}: drop "
        f"{found.drop:.2f}, bound {found.bound:.2f} on {found.samples} validation samples"
    )
    if found.drop <= max_drop:
        why += "; more validation data, or a lower --confidence, would decide it"
    return why
