"""Outlook: what a method gave when it was tried without training, and what follows from that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from penjing.contract import POINTS, Json

FORMAT = 1
TIME, CYCLES, MACS = "time", "cycles", "MACs"
HUNDREDTHS = "%"
"""What stands for speed: measured here, estimated by the device's compiler, or only counted."""


@dataclass(frozen=True)
class Figures:
    """What was found of one file.

    Attributes:
        speed: the share of the first file's time, cycles or MACs, see `Advice.speed`.
        low, high: the interval of a measured share.
        disturbed: whether other programs spoilt the timing.
        file_bytes: of the file.
        macs, params: of its network.
        memory_bytes: of the values that are alive at once, about.
        lost: how much of the metric is lost on the samples, beside the model itself; below 0 if it
            gained.
        unit: of that: points, or hundredths of the model's figure if the metric has a unit of its
            own.
        loss: by how much the task's loss rose on them, in its own unit.
        placement: of an NPU's file, how many operators run on each unit.
    """

    speed: float
    low: float
    high: float
    file_bytes: int
    macs: int
    params: int
    memory_bytes: int
    lost: float
    loss: float
    placement: Mapping[str, int] = field(default_factory=dict)
    disturbed: bool = False
    unit: str = POINTS


@dataclass(frozen=True)
class Outlook:
    """A method on this network and device.

    Attributes:
        family: the kind of method.
        title: what was tried.
        verdict: `"reference"`, `"pays"`, `"may pay"` where only MACs are known, `"smaller"`,
            `"loses too much"`, `"doesn't pay"`, `"unclear"`, `"can't work"` or `"not tried"`.
        why: in a sentence, from the figures.
        recipe: the passes, as JSON.
        runtime: whose file it was.
        figures: None if there was no file.
        expected: what is lost after the training that the recommendation has; None if unknown.
    """

    family: str
    title: str
    verdict: str
    why: str
    recipe: Sequence[Json] = ()
    runtime: str = ""
    figures: Figures | None = None
    expected: float | None = None


@dataclass(frozen=True)
class Recommended:
    """What to do next.

    Attributes:
        function: `"fit"`, in Python and on the command line.
        options: by name, as both have them.
        why: in a sentence.
    """

    function: str
    options: Mapping[str, str]
    why: str


@dataclass(frozen=True)
class Advice:
    """Which methods pay for a network on a device, and the evidence.

    Attributes:
        speed: `TIME`, `CYCLES` or `MACS`. Only a time is a measurement.
        machine: where that is from, in words; of a compiler's estimate, for which machine.
        samples: how many held-out samples judged accuracy.
        metric: its name.
        first: the title of the file of which all times are shares.
        outlooks: of all methods, in the order in which they were tried.
        epoch_seconds: how long an epoch of training takes here; None if the network can't be
            trained.
        notes: what users should know, a line each.
        seconds: how long this took.
    """

    task: str
    target: str
    speed: str
    machine: str
    samples: int
    metric: str
    first: str
    outlooks: tuple[Outlook, ...]
    recommended: Recommended
    epoch_seconds: float | None
    notes: tuple[str, ...]
    seconds: float

    @property
    def is_estimate(self) -> bool:
        """Whether nothing of the speed was measured."""
        return self.speed != TIME

    def to_json(self) -> dict[str, Any]:
        """Plain data, with the number of its format."""
        return {"format": FORMAT, "estimate": self.is_estimate, **asdict(self)}
