"""Proof: what a file is, what it takes and gives, and how it compares with the trained model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from penjing.contract import Drop, Estimate, Json, Parity
from penjing.layout import in_columns
from penjing.printable import printable
from penjing.runtimes.signature import Signature
from penjing.trials.evaluation.saturation import processor_of, warning
from penjing.trials.judgement.wording import confident, digits, figure_digits, measured


@dataclass(frozen=True)
class Proof:
    """What a file is, and how what it computes compares with the model that it was made from.

    Printing it gives a line for each question that a user may have.

    >>> import penjing, tempfile, torch
    >>> data = penjing.Arrays(torch.randn(64, 8), torch.arange(64) % 4)
    >>> task = penjing.Task(torch.nn.Linear(8, 4), data.x[:2], train=data, test=data)
    >>> network = penjing.capture(task.model, task.example)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     proof: penjing.Proof = penjing.export(network, task, "onnxruntime", out=folder)
    >>> proof.path.name, proof.drop.drop, proof.placement
    ('model.onnx', 0.0, {'cpu': 1})
    >>> print(proof.signature.inputs[0])
    input: float32 [batch, 8]

    Attributes:
        path: the file; of several that belong together, the first.
        runtime, version: what ran it.
        sha256: of its bytes; None if no record beside the file says what it should be.
        file_bytes: of all its files.
        metric: what `score` is called.
        score, original: of the file, and of the original model in PyTorch, on the test data.
        drop: how much it loses against the original model in PyTorch on the same samples.
        to_original: how close its outputs are to the original model's.
        parity: how close they are to those of the network that was written; None for a file that
            is only verified.
        signature: its inputs and outputs.
        loading: code that loads and runs it without penjing.
        placement: how many operators ran on which unit.
        fallbacks: operators that fell back to a lesser unit, by kind, and why; a line each.
        constraints: the options of `Quantize` that the runtime needs.
        notes: what to know of the task and of what quantization changed, a line each.
        saturates: `"never"`, or the layers whose sums may leave 16 bits on x86 processors without
            VNNI.
        judged_on: the processor that ran it, and those of its instructions that matter.
        diverges: why it computes something else than its network, where that was accepted.
        differs: which figures differ from the record beside a verified file, a line each.
        estimate: what an inference costs on a device that isn't here, by its vendor's tool.
    """

    path: Path
    runtime: str
    version: str
    sha256: str | None
    file_bytes: int
    metric: str
    score: float
    original: float
    drop: Drop
    to_original: Parity
    parity: Parity | None
    signature: Signature
    loading: str
    placement: dict[str, int]
    fallbacks: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    saturates: Json = "never"
    judged_on: Mapping[str, Json] = field(default_factory=dict)
    diverges: str | None = None
    differs: tuple[str, ...] = ()
    estimate: Estimate | None = None

    def to_json(self) -> dict[str, Json]:
        """Plain data: what `export.json` holds, and what the command line prints as JSON.

        Where the file lies isn't part of it, for a record travels with its file.
        """
        plain = asdict(self)
        del plain["path"], plain["loading"]
        for name in ("fallbacks", "constraints", "notes", "differs"):
            plain[name] = list(plain[name])
        return {"file": self.path.name, **plain, "signature": self.signature.to_json()}

    def __str__(self) -> str:
        return printable("\n".join(in_columns(self.rows())))

    def rows(self) -> list[tuple[str, str]]:
        """What is known of the file: the question in a word or two, and the answer."""
        hashed = self.sha256 or "unknown: there is no record beside the file"
        rows = [
            ("file", f"{self.path}, {self.file_bytes:,} bytes"),
            ("sha256", hashed),
            ("runtime", f"{self.runtime} {self.version}"),
            *(("input", str(spec)) for spec in self.signature.inputs),
            *(("output", str(spec)) for spec in self.signature.outputs),
            (self.metric, self._in_words()),
            *self._likeness(),
        ]
        if self.constraints:
            needed = ", ".join(self.constraints)
            rows.append(("integers", f"{self.runtime} needs these options of Quantize: {needed}"))
        rows += [("note", note) for note in self.notes]
        here = processor_of(self.judged_on)
        told = warning(self.path.name, self.saturates, here)
        rows.append(("overflow", told or "no sum of integers can overflow on any x86 processor"))
        rows.append(("judged on", str(here)))
        rows.append(
            ("operators", ", ".join(f"{n} on {unit}" for unit, n in self.placement.items()))
        )
        rows += [("fallback", line) for line in self.fallbacks]
        if self.estimate is not None:
            rows.append(("estimate", _estimated(self.estimate)))
        if self.diverges:
            rows.append(("diverges", f"accepted: {self.diverges}"))
        return rows + [("changed", f"not as recorded: {line}") for line in self.differs]

    def _in_words(self) -> str:
        """The score beside the original's."""
        lost = self.drop
        return (
            f"{figure_digits(self.score, lost.unit)} on {lost.samples} test samples; the original "
            f"model has {figure_digits(self.original, lost.unit)}. The drop is "
            f"{measured(lost.drop, lost.unit)}, at most {digits(lost.bound, lost.unit)} with "
            f"{confident(lost.confidence)}"
        )

    def _likeness(self) -> list[tuple[str, str]]:
        """How close its answers are to the network's, or to the original model's."""
        same = self.parity or self.to_original
        whose = "network's" if self.parity else "original model's"
        apart = (
            f"differ from the {whose} by {same.mean_difference:.3g} on average, by "
            f"{same.max_difference:.3g} at most"
        )
        rows = [("values", apart)]
        if same.same_decisions is not None and same.same_decisions_bound is not None:
            kept = (
                f"{100 * same.same_decisions:.2f} % are the same as the {whose}, at least "
                f"{100 * same.same_decisions_bound:.2f} % with 95 % confidence"
            )
            rows.append(("decisions", kept))
        return rows


def _estimated(estimate: Estimate) -> str:
    figures = {
        "cycles": estimate.cycles,
        "ms": estimate.latency_ms,
        "bytes of SRAM": estimate.sram_bytes,
        "bytes of DRAM": estimate.dram_bytes,
        "bytes of flash": estimate.flash_bytes,
    }
    known = [
        f"{figure:,.6g} {what}" if what == "ms" else f"{figure:,} {what}"
        for what, figure in figures.items()
        if figure
    ]
    return f"{estimate.source}, {estimate.machine}: {', '.join(known)}"
