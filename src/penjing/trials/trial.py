"""Trial: one candidate with what was measured on its file, or the reason why nothing was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum

from penjing.contract import Drop, Json, Latency, Measurement
from penjing.trials.candidate import Candidate

ORIGINAL = "original"
"""The title of the candidate with an empty recipe, in the target's first runtime that holds
floats."""


class Status(StrEnum):
    """How far a candidate came. The values are what files hold; `words` is for people."""

    BASELINE = "baseline"
    KEPT = "kept"  # within the budget
    OVER_BUDGET = "over budget"
    OVER_ON_TEST = "over on test"  # within it on validation, but test doesn't certify that
    NOT_TUNED = "not tuned"  # its file was timed, and it went no further
    NOT_TRIED = "not tried"  # there was no time for it
    FAILED = "failed"

    @property
    def words(self) -> str:
        """What is said of a candidate, behind its title.

        >>> Status.OVER_BUDGET.words
        'is over the budget'
        """
        return _WORDS[self]


_WORDS = {
    Status.BASELINE: "is the original",
    Status.KEPT: "keeps the budget",
    Status.OVER_BUDGET: "is over the budget",
    Status.OVER_ON_TEST: "is not confirmed by the test data",
    Status.NOT_TUNED: "was only timed",
    Status.NOT_TRIED: "was not tried",
    Status.FAILED: "failed",
}


class Extent(Enum):
    """How much of a candidate is measured."""

    EVERYTHING = "everything"
    SPEED = "speed"  # its file is only timed; its weights are not the final ones


@dataclass(frozen=True)
class Proposal:
    """A candidate that a strategy wants tried.

    Attributes:
        title: of its row, for people.
        extent: how much of it is measured.
        must: whether it is tried even if the time is over.
        replaces: the key of the candidate whose row it takes, which was timed in its place.
        seconds: after which a training ends, should its steps become slower on the way.
    """

    candidate: Candidate
    title: str
    extent: Extent = Extent.EVERYTHING
    must: bool = False
    replaces: str | None = None
    seconds: float | None = None

    @property
    def key(self) -> str:
        """The candidate's."""
        return self.candidate.key


@dataclass(frozen=True)
class Trial:
    """One candidate and its figures.

    Attributes:
        title: for people only; no code takes it apart or looks a trial up by it.
        reason: why it isn't kept, or how its time compares; it continues a sentence that begins
            with the title.
        artifact: path of its file within the result's folder; None if there is none.
        sha256: of its file, or of all its files, concatenated.
        seconds: how long it took to make and measure.
        making_seconds: of these, how long its network took.
        pareto: no other candidate is better in drop, latency and bytes at once.
        replaces: see `Proposal`.
    """

    candidate: Candidate
    title: str
    status: Status
    reason: str = ""
    measurement: Measurement = field(default_factory=Measurement)
    artifact: str | None = None
    sha256: str | None = None
    seconds: float = 0.0
    making_seconds: float = 0.0
    pareto: bool = False
    replaces: str | None = None

    @property
    def key(self) -> str:
        """The candidate's."""
        return self.candidate.key

    @property
    def runtime(self) -> str:
        """The name of the runtime that its file is for."""
        return self.candidate.runtime

    @property
    def latency(self) -> Latency | None:
        """Of its file; None if it wasn't timed."""
        return self.measurement.latency

    @property
    def drop(self) -> Drop | None:
        """On validation data; None if it wasn't scored."""
        return self.measurement.drop

    @property
    def methods(self) -> list[str]:
        """The names of its passes."""
        return [str(step["method"]) for step in self.candidate.recipe]

    def to_json(self) -> dict[str, Json]:
        """Plain data, the inverse of `from_json`."""
        own = {name: getattr(self, name) for name in _PLAIN}
        figures = {"measurement": self.measurement.to_json()}
        return {"key": self.key, **self.candidate.to_json(), **own, **figures}

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Trial:
        """Read what `to_json` wrote, or a row of an older result, which called the title a name."""
        own = {name: data[name] for name in _PLAIN if name in data}
        own |= {"title": data.get("title", data.get("name")), "status": Status(data["status"])}
        figures = Measurement.from_json(data["measurement"])
        return cls(Candidate.from_json(data), measurement=figures, **own)


_PLAIN = (
    "title", "status", "reason", "artifact", "sha256", "seconds", "making_seconds", "pareto",
    "replaces",
)  # fmt: skip
