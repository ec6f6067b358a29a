"""Inputs for a runtime's file of which nothing but the file is known: random, batch 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penjing.contract import Input, Session
from penjing.errors import InputError
from penjing.runtimes.registry import runtime_of


def open_file(path: Path, runtime_name: str | None = None) -> Session:
    """A session of one thread, in the runtime of that name or the one that the ending tells.

    Raises:
        InputError: there is no such file, or its runtime isn't installed, can't load it, or is
            only simulated here.
    """
    if not path.is_file():
        raise InputError(f"no file {path}")
    runtime = runtime_of(path, runtime_name)
    if runtime.stand_in:
        raise InputError(
            f"{runtime.name}'s device isn't here, and what stands for it has a time that means "
            "nothing; take a file of another runtime"
        )
    try:
        return runtime.open([one.read_bytes() for one in runtime.files(path)])
    except (InputError, OSError) as error:
        raise InputError(f"{path}: {error}") from error


def random_inputs(of: Sequence[Input], seed: int = 0) -> tuple[Any, ...]:
    """One array for each input: normal numbers, or 0 and 1 where they are integers.

    Raises:
        InputError: an input of a type that can't be drawn, such as text.
    """
    draw = np.random.default_rng(seed)
    found = []
    for one in of:
        try:
            kind = np.dtype(one.dtype).kind
        except TypeError:
            raise InputError(f"an input of {one.dtype} can't be drawn") from None
        values = draw.standard_normal(one.shape) if kind == "f" else draw.integers(0, 2, one.shape)
        found.append(values.astype(one.dtype))
    return tuple(found)


def spelled(inputs: Sequence[Input]) -> str:
    """Shapes and types in words."""
    return ", ".join(f"{one.dtype} of {' x '.join(map(str, one.shape))}" for one in inputs)


def require_runs(name: str, session: Session, inputs: tuple[Any, ...]) -> None:
    """Run it once.

    Raises:
        InputError: it fails; a size that is free may have to be another one than 1.
    """
    try:
        session.run(inputs)
    except Exception as error:
        line = (str(error).splitlines() or [""])[0]
        shapes = ", ".join(str(list(one.shape)) for one in inputs)
        raise InputError(f"{name} can't run on random inputs of {shapes}: {line[:300]}") from error
