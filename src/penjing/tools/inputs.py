"""Random inputs of batch 1 for a file about which nothing else is known."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from penjing.contract import Artifact, Input, Session
from penjing.errors import InputError
from penjing.runtimes.contract import Runtime
from penjing.runtimes.registry import runtime_of
from penjing.tools.quarantine import admitted
from penjing.tools.record import is_ours, recorded


@contextlib.contextmanager
def usable(path: Path, runtime: Runtime, whole: bool = False) -> Iterator[Artifact]:
    """The file itself if a record beside it says that penjing wrote it, else a tried copy of it.

    Args:
        whole: whether the file will also be asked where its operators run.

    Raises:
        InputError: the file doesn't exist, or its runtime can't load it.
        UnsafeError: penjing didn't write the file, and the process that tried it had to be stopped
            or crashed (`penjing.tools.quarantine`).
    """
    if not path.is_file():
        raise InputError(f"file {path} doesn't exist; check its name")
    with contextlib.ExitStack() as until:
        artifact = _artifact(path, runtime)
        if not is_ours(path, artifact.sha256):
            artifact = until.enter_context(admitted(path, runtime, whole=whole))
        yield artifact


@contextlib.contextmanager
def opened(
    path: Path, runtime_name: str | None = None, whole: bool = False
) -> Iterator[tuple[Session, Artifact]]:
    """A session of one thread, and the file that it was loaded from, as `usable` gives it.

    Args:
        runtime_name: the runtime to load the file in. None chooses one by the file's ending.
        whole: see `usable`.

    Raises:
        InputError: the file doesn't exist, or its runtime isn't installed, can't load it, or only
            simulates its device on this machine.
        UnsafeError: see `usable`.
    """
    if not path.is_file():
        raise InputError(f"file {path} doesn't exist; check its name")
    runtime = runtime_of(path, runtime_name)
    if runtime.stand_in:
        raise InputError(
            f"{runtime.name} only simulates its device on this machine, so its times would mean "
            "nothing; give a file for another runtime"
        )
    with usable(path, runtime, whole) as artifact:
        yield _loaded(path, runtime, artifact), artifact


@contextlib.contextmanager
def as_recorded(
    path: Path, runtime_name: str | None = None
) -> Iterator[tuple[Runtime, Artifact, Session]]:
    """A file that has the bytes that the record beside it tells of; without a record, a tried copy.

    Args:
        runtime_name: the runtime to load the file in. None takes the record's, or the ending's.

    Raises:
        InputError: the file doesn't exist, or its runtime isn't installed or can't load it.
        UnsafeError: its bytes have changed since the record was written, and aren't loaded; or it
            has no record, and see `usable`.
        MachineError: this machine lacks what the runtime runs on.
    """
    if not path.is_file():
        raise InputError(f"file {path} doesn't exist; check its name")
    record = recorded(path)
    runtime = runtime_of(path, runtime_name or record.get("runtime"))
    wanted = record.get("sha256")
    with contextlib.ExitStack() as until:
        if wanted is not None:
            artifact = replace(_artifact(path, runtime), sha256=wanted)
        else:
            artifact = until.enter_context(admitted(path, runtime, whole=True))
        yield runtime, artifact, _loaded(path, runtime, artifact)


def _artifact(path: Path, runtime: Runtime) -> Artifact:
    try:
        return runtime.artifact(path)
    except OSError as error:
        raise InputError(f"{path}: {error}") from error


def _loaded(path: Path, runtime: Runtime, artifact: Artifact) -> Session:
    try:
        return runtime.load(artifact)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def open_file(path: Path, runtime_name: str | None = None) -> Session:
    """The session that `opened` gives, without the file."""
    with opened(path, runtime_name) as (session, _):
        return session


def random_inputs(of: Sequence[Input], seed: int = 0) -> tuple[Any, ...]:
    """One random array for each input: normally distributed, or 0 and 1 if it has integers.

    >>> (image,) = random_inputs([Input("image", (1, 2), "float32")], seed=0)
    >>> image.shape, image.dtype
    ((1, 2), dtype('float32'))

    Raises:
        InputError: an input has a type that isn't a number, such as text.
    """
    draw = np.random.default_rng(seed)
    arrays = []
    for wanted in of:
        try:
            kind = np.dtype(wanted.dtype).kind
        except TypeError:
            raise InputError(
                f"input {wanted.name!r} has type {wanted.dtype}, for which penjing can't make "
                "random values; give a file whose inputs are numbers"
            ) from None
        values = (
            draw.standard_normal(wanted.shape) if kind == "f" else draw.integers(0, 2, wanted.shape)
        )
        arrays.append(values.astype(wanted.dtype))
    return tuple(arrays)


def spelled(inputs: Sequence[Input]) -> str:
    """Shapes and types in words."""
    return ", ".join(f"{wanted.dtype} of {' x '.join(map(str, wanted.shape))}" for wanted in inputs)


def require_same_inputs(taken: Mapping[str, Sequence[Input]]) -> None:
    """Check that files can be run on the same inputs.

    Args:
        taken: by file, what it takes. Names may differ.

    Raises:
        InputError: a file takes other inputs than the first one.
    """
    shapes = {
        name: [replace(wanted, name="") for wanted in inputs] for name, inputs in taken.items()
    }
    first = next(iter(shapes))
    for name, shape in shapes.items():
        if shape != shapes[first]:
            raise InputError(
                f"inputs differ: {first} takes {spelled(shapes[first])}, {name} takes "
                f"{spelled(shape)}; give files that take the same inputs"
            )
