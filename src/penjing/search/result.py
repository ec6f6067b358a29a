"""Result: the baseline, every candidate, the chosen one, and the reasons."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from penjing.contract import Drop, Json, Latency, Measurement
from penjing.errors import InputError, in_one_line
from penjing.files import read_regular, write_atomically
from penjing.search.comparison import compared, tie
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
            and why it went no further is the reason), `"not tried"` (there was no time for it),
            `"over on test"` (within the budget on validation, but test doesn't certify it),
            `"failed"` or `"baseline"`.
        reason: why it isn't kept, or how its time compares, in one line.
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
        return compared(mine, theirs).faster

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
    if m.latency.disturbed and one.status != "baseline":
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


def betters(one: Candidate, baseline: Candidate, goal: str) -> bool:
    """Whether the file is better than the original in the goal's figure, beyond doubt."""
    if goal == "size":
        mine, theirs = one.measurement.file_bytes, baseline.measurement.file_bytes
        return mine is not None and theirs is not None and mine < theirs
    times = one.measurement.latency
    return times is not None and not times.disturbed and times.verdict == "faster"


def eligible(one: Candidate, baseline: Candidate, goal: str) -> bool:
    """Whether the candidate may be the answer: it keeps the budget by the bound of its drop, and
    betters the original. Only what is eligible can be a reason to refuse something else."""
    return one.status == "kept" and betters(one, baseline, goal)


def choose(
    baseline: Candidate, candidates: Sequence[Candidate], goal: str, max_drop: float
) -> tuple[Candidate, str]:
    """The best of those that are eligible, and why; the baseline if there is none.

    Candidates whose time can't be told from the fastest one's tie, and the smaller file wins.
    """
    some = [one for one in candidates if eligible(one, baseline, goal)]
    if not some:
        return baseline, _none_eligible(baseline, candidates, goal, max_drop)
    kept = [one for one in candidates if one.status == "kept"]
    if goal == "size":
        best = min(some, key=lambda one: (_bytes(one), _ratio(one)))
        return best, f"the smallest of {len(kept)} that keep the budget"
    fastest = min(some, key=_ratio)
    ties = [one for one in some if one is fastest or _tie(one, fastest)]
    best = min(ties, key=lambda one: (_bytes(one), _ratio(one)))
    if len(ties) > 1:
        return best, f"the smallest of {len(ties)} whose latency can't be told from the fastest"
    times = [one.measurement.latency for one in kept]
    if all(one and not one.disturbed and one.ratio >= _ratio(best) for one in times):
        return best, f"the fastest of {len(kept)} that keep the budget"
    return best, f"the fastest of {len(some)} that keep the budget and gain time beyond doubt"


def _tie(one: Candidate, other: Candidate) -> bool:
    mine, theirs = one.measurement.latency, other.measurement.latency
    return mine is not None and theirs is not None and tie(mine, theirs)


def _bytes(one: Candidate) -> float:
    size = one.measurement.file_bytes
    return float("inf") if size is None else size


def _ratio(one: Candidate) -> float:
    times = one.measurement.latency
    return float("inf") if times is None else times.ratio


def _none_eligible(
    baseline: Candidate, candidates: Sequence[Candidate], goal: str, max_drop: float
) -> str:
    kept = [one for one in candidates if one.status == "kept"]
    if not kept:
        return _nothing_kept(baseline, candidates, goal, max_drop)
    better = "smaller" if goal == "size" else "faster"
    why = f"no candidate that keeps the budget is {better} than the original"
    times = [one.measurement.latency for one in kept]
    disturbed = sum(one is not None and one.disturbed for one in times)
    if goal == "latency" and disturbed:
        why += f" beyond doubt; {disturbed} of {len(kept)} were disturbed while they were timed"
    return why


def _nothing_kept(
    baseline: Candidate, candidates: Sequence[Candidate], goal: str, max_drop: float
) -> str:
    over = [one for one in candidates if one.status == "over budget" and one.measurement.drop]
    if not over:
        tested = any(one.status == "over on test" for one in candidates)
        return "nothing else keeps the budget" if tested else "no candidate was finished"
    nearest = min(over, key=lambda one: one.measurement.drop.bound)  # type: ignore[union-attr]
    found = nearest.measurement.drop
    assert found is not None
    why = (
        f"nothing keeps the budget of {max_drop:g} points; nearest is {nearest.name}: drop "
        f"{found.drop:.2f}, bound {found.bound:.2f} on {found.samples} validation samples"
    )
    if found.drop <= max_drop < found.bound and betters(nearest, baseline, goal):
        why += "; more validation data, or a lower `confidence`, would decide it"
    return why
