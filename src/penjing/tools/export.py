"""Export a network to a runtime's file, and verify such a file: every figure on the file."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch.utils import _pytree as pytree

from penjing.contract import Artifact, Parity, Session
from penjing.errors import DivergenceError, InputError
from penjing.files import require_writable_folder, write_atomically
from penjing.measure.in_pytorch import InPyTorch
from penjing.measure.parity import parity
from penjing.measure.scores import judge
from penjing.network import Network, capture
from penjing.processor import this_processor
from penjing.runtimes.contract import Runtime
from penjing.runtimes.registry import ENTRIES, find_runtime
from penjing.targets import Target, find_target
from penjing.tasks.checks import check, require_scores
from penjing.tasks.overlap import require_apart
from penjing.tasks.task import Task, as_call
from penjing.tools.fallbacks import fallbacks
from penjing.tools.inputs import as_recorded
from penjing.tools.on_data import OnData
from penjing.tools.precision import PRECISIONS, in_precision
from penjing.tools.proof import Proof
from penjing.tools.record import RECORD, differences, recorded
from penjing.trials.evaluation.divergence import require_parity
from penjing.trials.evaluation.saturation import as_json, judged_on


@dataclass(frozen=True)
class ExportOptions:
    """What an export may be told beside its network, task, runtime, precision and folder.

    >>> ExportOptions(target="arm-corstone-300").target
    'arm-corstone-300'

    Attributes:
        target: the device, by name (`penjing targets`) or as a `Target`. The network is refused if
            it can't fit there.
        accept_divergence: write the file even if it computes something else than its network.
    """

    target: Target | str = "cpu"
    accept_divergence: bool = False


def export(
    network: Network,
    task: Task,
    runtime: str | None = None,
    precision: str | None = None,
    out: Path | str = "exported",
    options: ExportOptions | None = None,
) -> Proof:
    """Write a network as a runtime's file, and prove the file on the task's test data.

    The file is called `model`, with the runtime's ending. Beside it lies its record, `export.json`.
    Both are written once the file is proven: it computes what the network does, and its accuracy is
    known. Print the proof to see it, and `proof.loading` for code that runs the file.

    Args:
        network: what `penjing.capture` or a recipe gave.
        task: the task of the network, whose test data and metric judge the file. Its own model is
            the original that the file is compared with.
        runtime: by name, see `penjing runtimes`; the first of the target's if None.
        precision: `"float32"`; `"float16"`, which halves the bytes of real numbers; `"int8"`, which
            quantizes a network that isn't quantized yet, as the runtime needs it; or
            `"int8-weights"`, integer weights and all values in float. None keeps the network's own.
        out: the folder for the file and its record.
        options: all else.

    Raises:
        InputError: there is no such runtime or precision, the runtime can't hold the network, or
            something is wrong with the task; the message says what to do.
        DivergenceError: the file computes something else than its network, by more than rounding
            explains; the message names the first layer and the likely cause.
        MachineError: `out` can't be written.

    >>> import penjing, tempfile, torch
    >>> data = penjing.Arrays(torch.randn(64, 8), torch.arange(64) % 4)
    >>> task = penjing.Task(torch.nn.Linear(8, 4), data.x[:2], train=data, test=data)
    >>> network = penjing.capture(task.model, task.example)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     proof = penjing.export(network, task, "onnxruntime", "float16", out=folder)
    ...     sorted(path.name for path in Path(folder).iterdir())
    ['export.json', 'model.onnx']
    >>> print(proof.signature.outputs[0])
    output: float32 [batch, 4]
    >>> proof.loading.splitlines()[:2]
    ['import numpy', 'import onnxruntime']
    """
    if not isinstance(network, Network):
        raise InputError(
            f"export takes a Network; found {type(network).__name__}; penjing.capture(model, "
            "example) makes one"
        )
    writing = _Writing.of(runtime, precision, Path(out), options)
    task, notes = check(task)
    _require_same_inputs(network, task)
    original = capture(task.model, task.example, source=task.source)
    return writing.write(network, original, task, notes)


def export_model(
    task: Task,
    runtime: str | None = None,
    precision: str = "float32",
    out: Path | str = "exported",
    options: ExportOptions | None = None,
) -> Proof:
    """As `export`, of the task's own model as it is."""
    writing = _Writing.of(runtime, precision, Path(out), options)
    task, notes = check(task)
    original = capture(task.model, task.example, source=task.source)
    return writing.write(original, original, task, notes)


def _require_same_inputs(network: Network, task: Task) -> None:
    """Raise InputError if the network was captured with other inputs than the task has."""

    def described(example: Any) -> list[str]:
        leaves = pytree.tree_leaves(as_call(example))
        return [f"{leaf.dtype} {list(leaf.shape[1:])}".removeprefix("torch.") for leaf in leaves]

    takes, given = described(network.example), described(task.example)
    if takes != given:
        raise InputError(
            f"the network takes {', '.join(takes)} for each sample, but the example of the task "
            f"has {', '.join(given)}; give the task that the network was captured for"
        )


@dataclass(frozen=True)
class _Writing:
    """One export, once its runtime is known and its folder can be written."""

    runtime: Runtime
    target: Target
    precision: str | None
    out: Path
    accept_divergence: bool

    @classmethod
    def of(
        cls, runtime: str | None, precision: str | None, out: Path, options: ExportOptions | None
    ) -> _Writing:
        """Look everything up before any work."""
        options = options or ExportOptions()
        target = options.target
        if isinstance(target, str):
            target = find_target(target)
        chosen = find_runtime(runtime or target.runtimes[0]).on(target)
        if precision not in (None, *PRECISIONS):
            known = ", ".join(PRECISIONS)
            raise InputError(f"`precision` must be one of {known}; found {precision!r}")
        if precision is not None:
            chosen.require(precision)
        require_writable_folder(out)
        return cls(chosen, target, precision, out, options.accept_divergence)

    def write(self, given: Network, original: Network, task: Task, notes: tuple[str, ...]) -> Proof:
        """Lower the network, prove the file beside the original, and put both into the folder."""
        runtime, target = self.runtime, self.target
        require_scores(task, task.test)
        if self.precision == "int8":
            notes += require_apart(task)
        written = in_precision(given, task, runtime, self.precision)
        network, floats = written.network, written.floats
        runtime.require_possible(network, target, floats)
        with tempfile.TemporaryDirectory(dir=self.out, prefix=".export-") as folder:
            place = Path(folder) / f"model{runtime.ending}"
            artifact = runtime.lower(network, place, floats)
            for problem in runtime.too_large(network, target, artifact):
                raise InputError(problem)
            session = runtime.load(artifact)
            proof = _prove(artifact, session, runtime, task, original)
            measured = parity(network, session, task.test, floats=floats)
            why = _divergence(measured, network, runtime, artifact, task, floats)
            if why and not self.accept_divergence:
                raise DivergenceError(f"{why}; `accept_divergence` writes it all the same")
            for file in reversed(runtime.files(artifact.path)):
                write_atomically(self.out / file.name, file.read_bytes())
        path = self.out / place.name
        proof = replace(
            proof,
            path=path,
            sha256=artifact.sha256,
            parity=measured,
            loading=runtime.loading(path, proof.signature),
            constraints=written.constraints,
            notes=(*notes, *written.notes),
            diverges=why,
        )
        write_atomically(self.out / RECORD, json.dumps(proof.to_json(), indent=1, allow_nan=False))
        return proof


def _divergence(
    measured: Parity,
    network: Network,
    runtime: Runtime,
    artifact: Artifact,
    task: Task,
    floats: str,
) -> str | None:
    """Why a file computes something else than its network does; None if it doesn't."""
    inputs, _ = next(iter(task.test))
    try:
        require_parity(measured, network, runtime, artifact, inputs, floats)
    except DivergenceError as error:
        return str(error)
    return None


def verify(path: Path | str, task: Task, runtime_name: str | None = None) -> Proof:
    """Check a file against the record beside it, then run it on the test data.

    Its figures are held against the record's, and what differs is said.

    Args:
        path: a file that `fit` or `export` wrote, or any file of a runtime.
        task: whose test data it is run on.
        runtime_name: which to run it in; else the one that its record tells, or its ending.

    Raises:
        UnsafeError: its bytes aren't those that the record tells of, and aren't loaded; or there is
            no record, and a process in which they were tried didn't come well out of it.
        InputError: there is no such file, or no runtime for it.
        MachineError: this machine hasn't what the runtime runs on.

    >>> import penjing, tempfile, torch
    >>> data = penjing.Arrays(torch.randn(64, 8), torch.arange(64) % 4)
    >>> task = penjing.Task(torch.nn.Linear(8, 4), data.x[:2], train=data, test=data)
    >>> network = penjing.capture(task.model, task.example)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = penjing.export(network, task, "onnxruntime", out=folder)
    ...     verified = penjing.verify(written.path, task)
    >>> verified.score == written.score, verified.differs
    (True, ())
    """
    path = Path(path)
    record = recorded(path)
    with as_recorded(path, runtime_name) as (runtime, artifact, session):
        task, notes = check(task)
        require_scores(task, task.test)
        network = capture(task.model, task.example, source=task.source)
        answering = OnData(str(path), session)
        proof = _prove(artifact, answering, runtime, task, network)
    loading, wanted = runtime.loading(path, proof.signature), record.get("sha256")
    proof = replace(proof, path=path, sha256=wanted, loading=loading, notes=notes)
    return replace(proof, differs=differences(record, proof.to_json()))


def loading_of(path: Path, runtime_name: str, sha256: str | None, called: str | None = None) -> str:
    """Code that loads and runs the answer of a fit without penjing.

    It is empty where the file can't be asked for its inputs: its runtime isn't installed here, or
    its bytes aren't those that the fit recorded, and so no library parses them.

    Args:
        sha256: as the fit recorded it.
        called: how the code names the file; by default as `path` does.
    """
    entry = ENTRIES.get(runtime_name)
    if entry is None or entry.missing:
        return ""
    runtime = entry.kind()()
    if not all(file.is_file() for file in runtime.files(path)):
        return ""
    artifact = runtime.artifact(path)
    if artifact.sha256 != sha256:
        return ""
    return runtime.loading(Path(called or path), runtime.signature(artifact))


def _prove(
    artifact: Artifact, session: Session, runtime: Runtime, task: Task, original: Network
) -> Proof:
    """What the file itself tells and gives."""
    scores = judge(session, task.test, task.metric)
    usual = judge(InPyTorch(original), task.test, task.metric)
    places = runtime.placement(artifact)
    return Proof(
        path=artifact.path,
        runtime=runtime.name,
        version=ENTRIES[runtime.name].version or "",
        sha256=None,
        file_bytes=artifact.file_bytes,
        metric=task.metric.name,
        score=scores.figure,
        original=usual.figure,
        drop=usual.lost(scores),
        to_original=parity(original, session, task.test),
        parity=None,
        signature=runtime.signature(artifact),
        loading="",
        placement=dict(Counter(place.unit for place in places)),
        fallbacks=tuple(fallbacks(places)),
        saturates=as_json(runtime.saturating(artifact)),
        judged_on=judged_on(this_processor()),
        estimate=runtime.estimate(artifact),
    )
