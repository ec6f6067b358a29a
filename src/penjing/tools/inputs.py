"""Random inputs of batch 1 for a file about which nothing else is known."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penjing.contract import Artifact, Input, Session
from penjing.errors import InputError
from penjing.runtimes.contract import Runtime
from penjing.runtimes.registry import runtime_of
from penjing.tools.quarantine import admitted
from penjing.tools.record import is_ours


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
        try:
            artifact = runtime.artifact(path)
        except OSError as error:
            raise InputError(f"{path}: {error}") from error
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
        try:
            session = runtime.load(artifact)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        yield session, artifact


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


def require_runs(name: str, session: Session, inputs: tuple[Any, ...]) -> None:
    """Run a session once on the inputs.

    Raises:
        InputError: it fails. Perhaps a size that the file leaves free must not be 1.
    """
    try:
        session.run(inputs)
    except Exception as error:
        line = (str(error).splitlines() or [""])[0]
        shapes = ", ".join(str(list(array.shape)) for array in inputs)
        raise InputError(
            f"{name} fails on random inputs of shape {shapes}: {line[:300]}"
        ) from error
