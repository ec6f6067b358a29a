"""The plain data that floors hand to each other: plans, artifacts, measurements, sessions.

Everything here is frozen, prints, and goes to JSON and back; `None` means "not measured".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from penjing.layout import folded, wrapped

Array = NDArray[Any]
Json = Any
"""A value that `json.dumps` takes and `json.loads` gives back unchanged."""


@dataclass(frozen=True)
class LeftAlone:
    """A part of the network that a pass did not touch, and why.

    Attributes:
        what: an axis or a layer, by name.
        why: the reason, in words.
    """

    what: str
    why: str


@dataclass(frozen=True)
class Plan:
    """What a pass decided, before anything is changed.

    Printing it shows the summary, the notes, and what was left alone, a line for each reason.

    >>> alone = tuple(LeftAlone(f"conv{n}", "named in skip") for n in range(87))
    >>> print(Plan("PruneChannels", {}, summary="12 axes cut", left_alone=alone))
    PruneChannels: 12 axes cut
      left alone: 87 parts: named in skip (conv0, conv1, … and 85 more)

    Attributes:
        method: the pass's name, such as `"PruneChannels"`.
        options: the fields of the pass.
        edits: what will be done to the graph, in order; each is a mapping with the key `"edit"`
            that names an entry of `penjing.network.edits.table.EDITS`. Empty means nothing to do.
        summary: one line for people.
        left_alone: what was looked at and not touched, with the reason.
        notes: why what was chosen was chosen, a line each.
        parts: what the pass works on beside the edits, in order: a layer, by its node's name, or
            the two nodes that a part of the graph begins behind and ends with. None in a plan of
            an earlier penjing, which didn't tell.
    """

    method: str
    options: Mapping[str, Json]
    edits: tuple[Mapping[str, Json], ...] = ()
    summary: str = ""
    left_alone: tuple[LeftAlone, ...] = ()
    notes: tuple[str, ...] = ()
    parts: tuple[tuple[str, ...], ...] | None = ()

    def to_json(self) -> dict[str, Json]:
        """This plan as plain data, the inverse of `from_json`."""
        return {
            "method": self.method,
            "options": dict(self.options),
            "edits": [dict(edit) for edit in self.edits],
            "summary": self.summary,
            "left_alone": [asdict(left) for left in self.left_alone],
            "notes": list(self.notes),
            "parts": None if self.parts is None else [list(part) for part in self.parts],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Plan:
        """Read a plan that `to_json` wrote."""
        return cls(
            method=data["method"],
            options=dict(data["options"]),
            edits=tuple(dict(edit) for edit in data["edits"]),
            summary=data["summary"],
            left_alone=tuple(LeftAlone(**row) for row in data["left_alone"]),
            notes=tuple(data.get("notes", ())),
            parts=parts_from(data.get("parts")),
        )

    def __str__(self) -> str:
        lines = wrapped(f"{self.method}: {self.summary or 'nothing to do'}", rest="  ")
        for text in (*self.notes, *_folded(self.left_alone)):
            lines += wrapped(text, first="  ", rest="    ")
        return "\n".join(lines)


def _folded(left_alone: Sequence[LeftAlone]) -> list[str]:
    """A line for each reason, with what was left alone for it."""
    reasons: dict[str, list[str]] = {}
    for left in left_alone:
        reasons.setdefault(left.why, []).append(left.what)
    return [
        f"left alone: {names[0]}: {why}"
        if len(names) == 1
        else f"left alone: {len(names)} parts: {why} ({folded(names)})"
        for why, names in reasons.items()
    ]


def parts_from(data: Json) -> tuple[tuple[str, ...], ...] | None:
    """A plan's parts as JSON gives them."""
    return None if data is None else tuple(tuple(part) for part in data)


@dataclass(frozen=True)
class Artifact:
    """A file that a device's runtime loads, or the first of several that belong together.

    Attributes:
        path: where it lies.
        runtime: the name of the runtime that loads it, such as `"onnxruntime"`.
        file_bytes: the size on disk, of all its files.
        sha256: of the bytes of all its files; checked before they are loaded.
    """

    path: Path
    runtime: str
    file_bytes: int
    sha256: str


@dataclass(frozen=True)
class Placement:
    """Where one operator of an artifact runs.

    Attributes:
        name: of the operator in the file, as the runtime knows it; empty if the file keeps none.
        operator: its kind, such as `"QLinearConv"`.
        unit: what runs it, such as `"cpu"`, `"xnnpack"`, `"gpu"` or `"npu"`.
        why: why it fell back to a lesser unit than the runtime is there for; empty if it didn't.
    """

    name: str
    operator: str
    unit: str
    why: str = ""


@dataclass(frozen=True)
class Saturating:
    """A layer of an artifact whose sums may leave 16 bits on x86 processors without VNNI.

    Attributes:
        layer: its name.
        channels: how many of its output channels may.
        of: how many it has.
    """

    layer: str
    channels: int
    of: int

    def __str__(self) -> str:
        return f"{self.layer} ({self.channels} of {self.of} channels)"


def some_of(layers: Sequence[Saturating] | Sequence[str], shown: int = 3) -> str:
    """The first layers by name, and how many more there are."""
    more = len(layers) - shown
    names = ", ".join(map(str, layers[:shown]))
    return names + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True)
class Estimate:
    """What one inference costs on a device that isn't here, as a vendor's tool estimates.

    It is never ranked beside what was measured.

    Attributes:
        source: whose figures these are, such as `"estimated by Vela 5.2.0"`.
        machine: the accelerator, its clock and its memories, as the tool calls them.
        latency_ms: time of one inference.
        cycles: of the accelerator; less than the sum of the parts, which overlap.
        cycles_npu, cycles_sram, cycles_dram, cycles_flash: of arithmetic, and of access to each.
        sram_bytes, dram_bytes, flash_bytes: how much of each it takes.
        macs: multiply-accumulates.
    """

    source: str
    machine: str
    latency_ms: float | None = None
    cycles: int | None = None
    cycles_npu: int | None = None
    cycles_sram: int | None = None
    cycles_dram: int | None = None
    cycles_flash: int | None = None
    sram_bytes: int | None = None
    dram_bytes: int | None = None
    flash_bytes: int | None = None
    macs: int | None = None


@dataclass(frozen=True)
class Input:
    """What a session takes: a name, a shape with 1 for every size that is free, a NumPy type."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    def zeros(self) -> Array:
        """An array of that shape and type."""
        return np.zeros(self.shape, self.dtype)


class Session(Protocol):
    """An artifact loaded in its runtime, ready to run."""

    @property
    def inputs(self) -> Sequence[Input]:
        """What it takes, in the order of the model's own arguments."""
        ...

    def run(self, inputs: Any) -> Any:
        """Outputs for one batch: a NumPy array, or a tuple or dict of them, as the model returns.

        `inputs` is one array, a tuple of arrays or a dict of arrays by name, batch first.
        """
        ...


@dataclass(frozen=True)
class Parity:
    """How far an artifact's outputs are from the network's, on the same samples.

    Attributes:
        samples: how many were compared.
        max_difference: largest absolute difference of any output; NaN anywhere makes it infinite.
        mean_difference: mean absolute difference.
        same_decisions: share (0..1) of samples with the same argmax; None if outputs aren't scores.
        same_decisions_bound: its lower confidence bound at 95 % (Wilson); None as well.
        departure: root mean square of the difference over what rounding explains, of the output
            where that is most; beyond 1 the artifact computes something else than the network.
        rounded_decisions: share (0..1) of samples whose argmax the network's rounding itself keeps;
            None if it has none, or outputs aren't scores.
    """

    samples: int
    max_difference: float
    mean_difference: float
    same_decisions: float | None
    same_decisions_bound: float | None = None
    departure: float = 0.0
    rounded_decisions: float | None = None


@dataclass(frozen=True)
class Latency:
    """Time of one inference of one artifact, beside the baseline in the same windows.

    Attributes:
        latency_ms: median over all undisturbed runs.
        p90_ms: the 90th percentile.
        ratio: median over windows of (this / baseline); 1.0 for the baseline itself.
        ratio_low, ratio_high: confidence interval of `ratio`.
        windows: how many windows counted.
        disturbed: True when other load kept disturbing the windows; then don't trust the figure.
    """

    latency_ms: float
    p90_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    windows: int
    disturbed: bool = False

    @property
    def verdict(self) -> str:
        """`"faster"`, `"slower"` or `"no difference"` against the baseline."""
        if self.ratio_high < 1.0:
            return "faster"
        return "slower" if self.ratio_low > 1.0 else "no difference"


@dataclass(frozen=True)
class Drop:
    """A paired difference of scores to the original, in points (hundredths), on one data split.

    Attributes:
        drop: original minus candidate; negative is a gain.
        bound: one-sided upper confidence bound of `drop`.
        confidence: of the bound, such as 0.95.
        samples: how many pairs.
    """

    drop: float
    bound: float
    confidence: float
    samples: int


@dataclass(frozen=True)
class Measurement:
    """Figures of one artifact on one target; `None` is "not measured".

    Attributes:
        saturates: `"never"`, or the layers that may leave 16 bits on x86 processors without VNNI.
    """

    file_bytes: int | None = None
    weight_bytes: int | None = None
    peak_activation_bytes: int | None = None
    peak_process_bytes: int | None = None
    macs: int | None = None
    params: int | None = None
    score: float | None = None
    metric: str = "accuracy"
    latency: Latency | None = None
    drop: Drop | None = None
    parity: Parity | None = None
    saturates: Json = None
    notes: Sequence[str] = field(default=())

    def to_json(self) -> dict[str, Json]:
        """This measurement as plain data; `from_json` reads it."""
        return asdict(self) | {"notes": list(self.notes)}

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Measurement:
        """Read a measurement that `to_json` wrote."""
        parts = {"latency": Latency, "drop": Drop, "parity": Parity}
        read = {
            key: parts[key](**value) if key in parts and value is not None else value
            for key, value in data.items()
        }
        return cls(**read | {"notes": tuple(data["notes"])})


def as_arrays(inputs: Any) -> Any:
    """A batch's inputs with every tensor as a NumPy array, in the same structure."""
    if isinstance(inputs, dict):
        return {name: as_arrays(value) for name, value in inputs.items()}
    if isinstance(inputs, list | tuple):
        return tuple(as_arrays(value) for value in inputs)
    return inputs if isinstance(inputs, np.ndarray) else inputs.detach().cpu().numpy()
