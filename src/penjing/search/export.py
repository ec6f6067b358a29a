"""Export a task's network to a runtime's file, and verify such a file: every figure on the file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
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
from penjing.data import check
from penjing.errors import InputError
from penjing.files import require_writable_folder, write_atomically
from penjing.measure.parity import parity
from penjing.measure.scores import drop, score
from penjing.network import Network, capture
from penjing.passes import Quantize
from penjing.runtimes.contract import Runtime
from penjing.runtimes.registry import ENTRIES, find_runtime, runtime_of
from penjing.search.divergence import first_divergence
from penjing.search.result import Result
from penjing.targets import Target
from penjing.task import Task, as_call

PRECISIONS = ("float32", "float16", "int8", "int8-weights")
RECORD = "export.json"
LEAST_SAME = 0.98  # of the decisions; fewer, and the layer is looked for that goes astray
FAR = {"float32": 1e-3, "float16": 2e-2, "int8": 0.2, "int8-weights": 1e-3}
"""Of a value's largest number, from what the file was lowered from; int8 adds up many roundings."""


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
        parity: to the network that it was lowered from; for a file that is only verified, to the
            original.
        placement: how many operators ran on which unit.
        fallbacks: operators that fell back to a lesser unit, and why.
        demands: what the runtime demanded of the integers, options of `Quantize`.
        diverges: the first layer that gives something else than the network; None if none does.
        estimate: of a device that isn't here, by its vendor's tool; None where there is none.
    """

    file: str
    runtime: str
    version: str
    sha256: str | None
    file_bytes: int
    score: float
    drop: Drop
    parity: Parity
    placement: dict[str, int]
    fallbacks: tuple[str, ...] = ()
    demands: tuple[str, ...] = ()
    diverges: str | None = None
    estimate: Estimate | None = None

    def to_json(self) -> dict[str, Json]:
        """Plain data."""
        lists = {"fallbacks": list(self.fallbacks), "demands": list(self.demands)}
        return asdict(self) | lists


def export(
    task: Task, runtime: str, out: Path, target: Target, precision: str = "float32"
) -> Proof:
    """Write the task's network as the runtime's file, and prove it on the test data.

    The file is `model` with the runtime's ending in `out`, with its record `export.json`.

    Args:
        precision: `"float32"`; `"float16"`, real numbers in half the bytes; `"int8"`; or
            `"int8-weights"`, integer weights and all values in float. Inputs and outputs are
            float32 in any of them; the runtime's docstring says what it computes in.

    Raises:
        InputError: there is no such runtime or precision, the runtime's files can't hold it, a
            weight is beyond float16's range, or the runtime or the target can't take the network;
            the message names what stands against it.
        MachineError: `out` can't be written.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}; found {precision!r}")
    one = find_runtime(runtime).on(target)
    one.require(precision)
    require_writable_folder(out)
    check(task)
    original = network = capture(task.model, task.example, source=task.source)
    if precision == "int8":
        network = Quantize(**one.demands)(original, task)
    elif precision == "int8-weights":
        network = Quantize(activations=None)(original, task)
    floats = precision if precision in one.floats else "float32"
    for problem in one.problems(network, target, floats):
        raise InputError(problem)
    artifact = one.lower(network, out / f"model{one.ending}", floats)
    for problem in one.too_large(network, target, artifact):
        raise InputError(problem)
    session = one.load(artifact)
    proof = _prove(artifact, session, one, task, original, network, artifact.sha256)
    if precision == "int8":
        proof = replace(proof, demands=tuple(one.demands))
    same = proof.parity.same_decisions
    if same is not None and same < LEAST_SAME:
        found = first_divergence(network, one, task.example, FAR[precision], floats)
        proof = replace(proof, diverges=found)
    write_atomically(out / RECORD, json.dumps(proof.to_json(), indent=1, allow_nan=False))
    return proof


def verify(path: Path, task: Task, runtime_name: str | None = None) -> Proof:
    """Check a file against the record beside it, then run it on the test data.

    Args:
        runtime_name: which to run it in; else the one that its record tells, or its ending.

    Raises:
        UnsafeError: its bytes aren't those that the record tells of; they aren't loaded.
        InputError: there is no such file, or no runtime for it.
        MachineError: this machine hasn't what the runtime runs on.
    """
    if not path.is_file():
        raise InputError(f"no file {path}")
    wanted, made_for = _recorded(path)
    runtime = runtime_of(path, runtime_name or made_for)
    artifact = runtime.artifact(path)
    if wanted is not None:
        artifact = replace(artifact, sha256=wanted)
    session = runtime.load(artifact)  # refused before any work, if it has changed
    check(task)
    network = capture(task.model, task.example, source=task.source)
    return _prove(artifact, session, runtime, task, network, network, wanted)


def _recorded(path: Path) -> tuple[str | None, str | None]:
    """The hash and the runtime that an `export.json` or a `result.json` beside the file tells."""
    record = path.parent / RECORD
    if record.exists():
        try:
            found = json.loads(record.read_text())
            if found["file"] == path.name:
                return str(found["sha256"]), str(found["runtime"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{record} can't be read: {error}") from error
    if (path.parent / "result.json").exists():
        result = Result.load(path.parent)
        if result.artifact == path.name:
            chosen = result.find(result.chosen)
            return chosen.sha256, chosen.runtime
    return None, None


def _prove(
    artifact: Artifact,
    session: Session,
    runtime: Runtime,
    task: Task,
    original: Network,
    network: Network,
    sha256: str | None,
) -> Proof:
    found = score(session, task.test, task.metric)
    usual = score(_InPyTorch(original), task.test, task.metric)
    places = runtime.placement(artifact)
    return Proof(
        artifact.path.name,
        runtime.name,
        ENTRIES[runtime.name].version or "",
        sha256,
        artifact.file_bytes,
        float(found.mean()),
        drop(usual, found),
        parity(network, session, task.test),
        dict(Counter(one.unit for one in places)),
        tuple(f"{one.name} ({one.operator}) on {one.unit}: {one.why}" for one in places if one.why),
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
        found: Array | Any = torch.utils._pytree.tree_map(np.asarray, as_arrays(outputs))
        return found
