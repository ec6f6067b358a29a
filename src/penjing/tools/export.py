"""Export a task's network to a runtime's file, and verify such a file: every figure on the file."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from penjing.contract import (
    Array,
    Artifact,
    Drop,
    Estimate,
    Input,
    Json,
    Parity,
    Session,
    as_arrays,
)
from penjing.errors import DivergenceError, InputError
from penjing.files import require_writable_folder, write_atomically
from penjing.measure.parity import parity
from penjing.measure.scores import drop, score
from penjing.network import Network, capture
from penjing.passes import Quantize
from penjing.processor import this_processor
from penjing.runtimes.contract import Runtime
from penjing.runtimes.registry import ENTRIES, find_runtime, runtime_of
from penjing.targets import Target
from penjing.tasks.checks import check, require_scores
from penjing.tasks.overlap import require_apart
from penjing.tasks.task import Task, as_call
from penjing.tools.quarantine import admitted
from penjing.tools.record import RECORD, differences, recorded
from penjing.trials.evaluation.divergence import require_parity
from penjing.trials.evaluation.fallbacks import fallbacks
from penjing.trials.evaluation.saturation import as_json, judged_on

PRECISIONS = ("float32", "float16", "int8", "int8-weights")


@dataclass(frozen=True)
class Proof:
    """What a file is, and how what it gives compares with the network that it was made from.

    Attributes:
        file: its name.
        runtime, version: what ran it.
        sha256: of its bytes; None if no record beside the file says what it should be.
        file_bytes: of all its files.
        score: of the file on the test data.
        drop: paired, to the original float network in PyTorch on the same samples.
        to_original: parity to the original float network.
        parity: to the network that it was lowered from; None for a file that is only verified.
        placement: how many operators ran on which unit.
        fallbacks: operators that fell back to a lesser unit, by kind, and why; a line each.
        constraints: what the runtime needs of the integers, options of `Quantize`.
        notes: what to know of the task, and what rounding changed, such as scales that grew so
            that no sum overflows; a line each.
        saturates: `"never"`, or the layers that may leave 16 bits on x86 processors without VNNI.
        judged_on: the processor that ran it, and those of its instructions that matter.
        diverges: why it computes something else than its network, where that was accepted.
        differs: what the record beside a verified file says otherwise, a line each.
        estimate: of a device that isn't here, by its vendor's tool; None where there is none.
    """

    file: str
    runtime: str
    version: str
    sha256: str | None
    file_bytes: int
    score: float
    drop: Drop
    to_original: Parity
    parity: Parity | None
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
        """Plain data."""
        names = ("fallbacks", "constraints", "notes", "differs")
        return asdict(self) | {name: list(getattr(self, name)) for name in names}


def export(
    task: Task,
    runtime: str,
    out: Path,
    target: Target,
    precision: str = "float32",
    accept_divergence: bool = False,
) -> Proof:
    """Write the task's network as the runtime's file, and prove it on the test data.

    The file is `model` with the runtime's ending in `out`, with its record `export.json`. It is
    put there once it is proven.

    Args:
        precision: `"float32"`; `"float16"`, real numbers in half the bytes; `"int8"`; or
            `"int8-weights"`, integer weights and all values in float. Inputs and outputs are
            float32 in any of them; the runtime's docstring says what it computes in.
        accept_divergence: write the file even if it computes something else than its network.

    Raises:
        InputError: there is no such runtime or precision, the runtime's files can't hold it, a
            weight is beyond float16's range, or the runtime or the target can't take the network;
            the message names what stands against it. Or something is wrong with the task.
        DivergenceError: the file computes something else here than its network, by more than
            rounding explains; the message names the first layer and the likely cause.
        MachineError: `out` can't be written.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}; found {precision!r}")
    chosen = find_runtime(runtime).on(target)
    chosen.require(precision)
    require_writable_folder(out)
    task, notes = check(task)
    require_scores(task, task.test)
    if precision == "int8":
        notes += require_apart(task)
    original = capture(task.model, task.example, source=task.source)
    network = _in_precision(original, task, chosen, precision)
    floats = precision if precision in chosen.floats else "float32"
    for problem in chosen.problems(network, target, floats):
        raise InputError(problem)
    with tempfile.TemporaryDirectory(dir=out, prefix=".export-") as folder:
        artifact = chosen.lower(network, Path(folder) / f"model{chosen.ending}", floats)
        for problem in chosen.too_large(network, target, artifact):
            raise InputError(problem)
        proof = _prove(artifact, chosen.load(artifact), chosen, task, original, artifact.sha256)
        proof = replace(proof, **_of_lowering(network, chosen, precision))
        proof = replace(proof, notes=(*notes, *proof.notes))
        measured = parity(network, chosen.load(artifact), task.test, floats=floats)
        why = _divergence(measured, network, chosen, artifact, task, floats)
        if why and not accept_divergence:
            raise DivergenceError(f"{why}; `accept_divergence` writes it all the same")
        proof = replace(proof, parity=measured, diverges=why)
        for file in reversed(chosen.files(artifact.path)):
            write_atomically(out / file.name, file.read_bytes())
    write_atomically(out / RECORD, json.dumps(proof.to_json(), indent=1, allow_nan=False))
    return proof


def _of_lowering(network: Network, runtime: Runtime, precision: str) -> dict[str, Any]:
    """What of a proof was known before there was a file."""
    constraints = runtime.constraints.items() if precision == "int8" else ()
    notes = network.history[-1].notes if network.history else ()
    return {"constraints": tuple(name for name, on in constraints if on), "notes": notes}


def _in_precision(original: Network, task: Task, runtime: Runtime, precision: str) -> Network:
    """The network whose file is wanted."""
    if precision == "int8":
        return Quantize(**runtime.constraints)(original, task)
    if precision == "int8-weights":
        return Quantize(activations=None)(original, task)
    return original


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


def verify(path: Path, task: Task, runtime_name: str | None = None) -> Proof:
    """Check a file against the record beside it, then run it on the test data.

    Its figures are held against the record's, and what differs is said.

    Args:
        runtime_name: which to run it in; else the one that its record tells, or its ending.

    Raises:
        UnsafeError: its bytes aren't those that the record tells of, and aren't loaded; or there is
            no record, and a process in which they were tried didn't come well out of it.
        InputError: there is no such file, or no runtime for it.
        MachineError: this machine hasn't what the runtime runs on.
    """
    if not path.is_file():
        raise InputError(f"no file {path}")
    record = recorded(path)
    runtime = runtime_of(path, runtime_name or record.get("runtime"))
    wanted = record.get("sha256")
    with ExitStack() as until:
        if wanted is None:
            artifact = until.enter_context(admitted(path, runtime, whole=True))
        else:
            artifact = replace(runtime.artifact(path), sha256=wanted)
        session = runtime.load(artifact)  # refused before any work, if it has changed
        task, notes = check(task)
        require_scores(task, task.test)
        network = capture(task.model, task.example, source=task.source)
        proof = _prove(artifact, session, runtime, task, network, wanted)
    return replace(proof, notes=notes, differs=differences(record, proof.to_json()))


def _prove(
    artifact: Artifact,
    session: Session,
    runtime: Runtime,
    task: Task,
    original: Network,
    sha256: str | None,
) -> Proof:
    scores = score(session, task.test, task.metric)
    usual = score(_InPyTorch(original), task.test, task.metric)
    places = runtime.placement(artifact)
    return Proof(
        artifact.path.name,
        runtime.name,
        ENTRIES[runtime.name].version or "",
        sha256,
        artifact.file_bytes,
        float(scores.mean()),
        drop(usual, scores),
        parity(original, session, task.test),
        None,
        dict(Counter(place.unit for place in places)),
        tuple(fallbacks(places)),
        saturates=as_json(runtime.saturating(artifact)),
        judged_on=judged_on(this_processor()),
        estimate=runtime.estimate(artifact),
    )


class _InPyTorch:
    """A network as a session: the same question for both."""

    inputs: Sequence[Input] = ()

    def __init__(self, network: Network) -> None:
        self.network = network

    def run(self, inputs: Any) -> Any:
        """See `penjing.contract.Session`."""
        args, kwargs = as_call(torch.utils._pytree.tree_map(torch.from_numpy, inputs))
        with torch.no_grad():
            outputs = self.network(*args, **kwargs)
        arrays: Array | Any = torch.utils._pytree.tree_map(np.asarray, as_arrays(outputs))
        return arrays
