"""The plain data that the parts of penjing exchange: plans, artifacts, measurements, sessions.

All of it is frozen and printable. `None` means "not measured".
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
POINTS = "points"
"""The unit of drops and budgets that are hundredths of a metric. Any other is the metric's own."""
Json = Any
"""A value that `json.dumps` accepts and `json.loads` returns unchanged."""


@dataclass(frozen=True)
class LeftAlone:
    """A part of the network that a pass doesn't touch, and why.

    Attributes:
        what: the part, such as the name of a layer.
        why: the reason.
    """

    what: str
    why: str


@dataclass(frozen=True)
class Plan:
    """What a pass will do to a network, decided before anything is changed.

    Printing it shows the summary, the notes, and what was left alone, a line for each reason.

    >>> alone = tuple(LeftAlone(f"conv{n}", "named in skip") for n in range(87))
    >>> print(Plan("PruneChannels", {}, summary="12 axes cut", left_alone=alone))
    PruneChannels: 12 axes cut
      left alone: 87 parts: named in skip (conv0, conv1, … and 85 more)

    Attributes:
        method, options: the name of the pass, such as `"PruneChannels"`, and its fields.
        edits: the edits of the graph, in order. Each is a mapping whose key `"edit"` names an entry
            of `penjing.network.edits.table.EDITS`. Empty means that there is nothing to do.
        summary: one line for people.
        left_alone: what the pass considered but doesn't touch, with reasons.
        notes: the reasons for the decisions, one line each.
        parts: what the pass works on besides the edits, in order. Each part is a layer, given by
            the name of its node, or a section of the graph, given by the node before it and its
            last node. None in a plan of an older penjing, which didn't record it.
    """

    method: str
    options: Mapping[str, Json]
    edits: tuple[Mapping[str, Json], ...] = ()
    summary: str = ""
    left_alone: tuple[LeftAlone, ...] = ()
    notes: tuple[str, ...] = ()
    parts: tuple[tuple[str, ...], ...] | None = ()

    def to_json(self) -> dict[str, Json]:
        """This plan as plain data. `from_json` reads it."""
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
    """The parts of a plan from JSON."""
    return None if data is None else tuple(tuple(part) for part in data)


@dataclass(frozen=True)
class Artifact:
    """A file that a runtime loads, or several files that belong together.

    `Runtime.lower` writes one, and `Runtime.artifact` describes a file that exists already:

    >>> import tempfile
    >>> from penjing.runtimes.onnx.runtime import OnnxRuntime
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     size = Path(folder, "model.onnx").write_bytes(b"not a model yet")
    ...     artifact = OnnxRuntime().artifact(Path(folder, "model.onnx"))
    >>> artifact.runtime, artifact.file_bytes
    ('onnxruntime', 15)

    Attributes:
        path: the file, or the first of several.
        runtime: the name of the runtime that loads it, such as `"onnxruntime"`.
        file_bytes: the size of all its files on disk.
        sha256: the hash of the bytes of all its files. It is checked before they are loaded.
    """

    path: Path
    runtime: str
    file_bytes: int
    sha256: str


@dataclass(frozen=True)
class Placement:
    """Where one operator of an artifact runs.

    Attributes:
        name: the name of the operator in the file, as the runtime knows it; empty if the file
            keeps none.
        operator: its kind, such as `"QLinearConv"`.
        unit: the unit that runs it, such as `"cpu"`, `"xnnpack"`, `"gpu"` or `"npu"`.
        why: why it fell back from the runtime's own unit to another one. Empty if it didn't.
    """

    name: str
    operator: str
    unit: str
    why: str = ""


@dataclass(frozen=True)
class Saturating:
    """A layer of an artifact whose 16-bit sums may saturate on x86 processors without VNNI.

    Attributes:
        layer: the name of the layer.
        channels: the number of output channels that may saturate.
        of: the number of all its output channels.
    """

    layer: str
    channels: int
    of: int

    def __str__(self) -> str:
        return f"{self.layer} ({self.channels} of {self.of} channels)"


def some_of(layers: Sequence[Saturating] | Sequence[str], shown: int = 3) -> str:
    """The first few layers by name, and how many more there are."""
    more = len(layers) - shown
    names = ", ".join(map(str, layers[:shown]))
    return names + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True)
class Estimate:
    """What one inference costs on a device that isn't connected, as a vendor's tool estimates it.

    Estimates are never ranked together with measurements.

    Attributes:
        source: whose figures these are, such as `"estimated by Vela 5.2.0"`.
        machine: the accelerator, its clock and its memories, as the tool calls them.
        latency_ms: the time of one inference.
        cycles: the accelerator's cycles. Less than the sum of the parts below, because they
            overlap.
        cycles_npu, cycles_sram, cycles_dram, cycles_flash: the cycles of arithmetic, and of access
            to each memory.
        sram_bytes, dram_bytes, flash_bytes: how much of each memory is used.
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
    """An input of a session.

    >>> Input("image", (1, 3), "float32").zeros()
    array([[0., 0., 0.]], dtype=float32)

    Attributes:
        name: its name.
        shape: its shape, with 1 for each free size.
        dtype: the name of its NumPy type.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    def zeros(self) -> Array:
        """An array of zeros with that shape and type."""
        return np.zeros(self.shape, self.dtype)


class Session(Protocol):
    """An artifact that is loaded in its runtime and ready to run."""

    @property
    def inputs(self) -> Sequence[Input]:
        """Its inputs, in the order of the model's arguments."""
        ...

    def run(self, inputs: Any) -> Any:
        """Run one batch.

        Args:
            inputs: one NumPy array, a tuple of arrays, or a dict of arrays by name. The batch is
                the first dimension.

        Returns:
            The outputs as the model returns them: an array, or a tuple or dict of arrays.
        """
        ...


@dataclass(frozen=True)
class Parity:
    """How far an artifact's outputs are from the network's, on the same samples.

    Attributes:
        samples: the number of samples that were compared.
        max_difference: the largest absolute difference of any output. Infinite if there is a NaN.
        mean_difference: the mean absolute difference.
        same_decisions: the share (0..1) of samples with the same argmax. None if the outputs aren't
            scores of classes.
        same_decisions_bound: the lower 95 % confidence bound of `same_decisions` (Wilson), or None.
        departure: the root mean square of the difference, divided by what rounding explains. The
            output with the largest value counts. Above 1, the artifact doesn't compute what the
            network computes.
        rounded_decisions: the share (0..1) of samples whose argmax the network's own quantization
            keeps. None if the network isn't quantized, or the outputs aren't scores of classes.
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
    """The time of one inference of an artifact, measured in the same windows as the baseline.

    Attributes:
        latency_ms: the median over all undisturbed runs.
        p90_ms: the 90th percentile.
        ratio: the median over windows of (this / baseline). 1.0 for the baseline itself.
        ratio_low, ratio_high: the confidence interval of `ratio`.
        windows: the number of windows that counted.
        disturbed: whether other load disturbed too many windows. Then don't trust the figures.
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
        """`"faster"`, `"slower"` or `"no difference"`, compared with the baseline."""
        if self.ratio_high < 1.0:
            return "faster"
        return "slower" if self.ratio_low > 1.0 else "no difference"


@dataclass(frozen=True)
class Drop:
    """How much worse a candidate does than the original on the same samples.

    Attributes:
        drop: how much worse its figure is. Negative if the candidate is better.
        bound: the one-sided upper confidence bound of `drop`.
        confidence: the confidence of the bound, such as 0.95.
        samples: the number of samples.
        unit: of both: points, which are hundredths of the metric, or the metric's own.
    """

    drop: float
    bound: float
    confidence: float
    samples: int
    unit: str = POINTS


@dataclass(frozen=True)
class Measurement:
    """The figures of one artifact on one target. `None` means "not measured".

    >>> measurement = Measurement(file_bytes=112_640, score=0.978)
    >>> measurement.latency is None
    True
    >>> Measurement.from_json(measurement.to_json()) == measurement
    True

    Attributes:
        file_bytes, weight_bytes: the size of the artifact's files, and of the weights in them.
        peak_activation_bytes: the most bytes of values that are alive at once, for one sample: one
            byte each if values are quantized, else four.
        peak_process_bytes: the peak memory of a process that loads the artifact and runs it once.
        macs, params: multiply-accumulates for one sample, and the number of parameters.
        score, metric: the figure of the metric, and its name.
        latency: the time of one inference.
        drop: the drop of the score compared with the original.
        parity: how far the outputs are from the network's.
        saturates: `"never"`, or the layers that may saturate on x86 processors without VNNI.
        notes: what to know about the figures, one line each.
        estimate: of the cost on a device that isn't here; None where time is measured.
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
    estimate: Estimate | None = None

    def to_json(self) -> dict[str, Json]:
        """This measurement as plain data. `from_json` reads it."""
        return asdict(self) | {"notes": list(self.notes)}

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Measurement:
        """Read a measurement that `to_json` wrote."""
        parts = {"latency": Latency, "drop": Drop, "parity": Parity, "estimate": Estimate}
        read = {
            key: parts[key](**value) if key in parts and value is not None else value
            for key, value in data.items()
        }
        return cls(**read | {"notes": tuple(data["notes"])})


def as_arrays(inputs: Any) -> Any:
    """The inputs of a batch with each tensor as a NumPy array, in the same structure."""
    if isinstance(inputs, dict):
        return {name: as_arrays(value) for name, value in inputs.items()}
    if isinstance(inputs, list | tuple):
        return tuple(as_arrays(value) for value in inputs)
    return inputs if isinstance(inputs, np.ndarray) else inputs.detach().cpu().numpy()
