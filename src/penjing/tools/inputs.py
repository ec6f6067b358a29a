"""Inputs for a runtime's file of which nothing but the file is known: random, batch 1."""

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
    """The file, if a record beside it says that it's ours; else a copy of it, which was tried.

    Args:
        whole: whether more will be asked of the file than to run.

    Raises:
        InputError: there is no such file, or its runtime can't load it.
        UnsafeError: it isn't ours, and a process in which it was tried didn't come well out of it
            (`penjing.tools.quarantine`).
    """
    if not path.is_file():
        raise InputError(f"no file {path}")
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
    """A session of one thread, in the runtime of that name or the one that the ending tells; and
    the file that it was loaded from, as `usable` gives it.

    Raises:
        InputError: there is no such file, or its runtime isn't installed, can't load it, or is
            only simulated here.
        UnsafeError: see `usable`.
    """
    if not path.is_file():
        raise InputError(f"no file {path}")
    runtime = runtime_of(path, runtime_name)
    if runtime.stand_in:
        raise InputError(
            f"{runtime.name}'s device isn't here, and what stands for it has a time that means "
            "nothing; take a file of another runtime"
        )
    with usable(path, runtime, whole) as artifact:
        try:
            session = runtime.load(artifact)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        yield session, artifact


def open_file(path: Path, runtime_name: str | None = None) -> Session:
    """The session alone that `opened` gives."""
    with opened(path, runtime_name) as (session, _):
        return session


def random_inputs(of: Sequence[Input], seed: int = 0) -> tuple[Any, ...]:
    """One array for each input: normal numbers, or 0 and 1 where they are integers.

    Raises:
        InputError: an input of a type that can't be drawn, such as text.
    """
    draw = np.random.default_rng(seed)
    arrays = []
    for wanted in of:
        try:
            kind = np.dtype(wanted.dtype).kind
        except TypeError:
            raise InputError(f"an input of {wanted.dtype} can't be drawn") from None
        values = (
            draw.standard_normal(wanted.shape) if kind == "f" else draw.integers(0, 2, wanted.shape)
        )
        arrays.append(values.astype(wanted.dtype))
    return tuple(arrays)


def spelled(inputs: Sequence[Input]) -> str:
    """Shapes and types in words."""
    return ", ".join(f"{wanted.dtype} of {' x '.join(map(str, wanted.shape))}" for wanted in inputs)


def require_runs(name: str, session: Session, inputs: tuple[Any, ...]) -> None:
    """Run it once.

    Raises:
        InputError: it fails; a size that is free may have to be another one than 1.
    """
    try:
        session.run(inputs)
    except Exception as error:
        line = (str(error).splitlines() or [""])[0]
        shapes = ", ".join(str(list(array.shape)) for array in inputs)
        raise InputError(f"{name} can't run on random inputs of {shapes}: {line[:300]}") from error
