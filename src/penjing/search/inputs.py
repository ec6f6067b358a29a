"""Inputs for an ONNX file of which nothing but the file is known: random, batch 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from penjing.errors import InputError
from penjing.runtimes.onnxruntime import OnnxSession

TYPES = {
    "tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16",
    "tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(int8)": "int8",
    "tensor(uint8)": "uint8", "tensor(bool)": "bool",
}  # fmt: skip

Signature = list[tuple[list[int], str]]
"""For each input its shape, with 1 for every size that is free, and its ONNX type."""


def open_file(path: Path) -> OnnxSession:
    """A session of one thread.

    Raises:
        InputError: there is no such file, or ONNX Runtime can't load it.
    """
    if not path.is_file():
        raise InputError(f"no file {path}")
    try:
        return OnnxSession(path.read_bytes())
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def signature(session: OnnxSession) -> Signature:
    """What the session takes."""
    return [
        ([n if isinstance(n, int) else 1 for n in one.shape], one.type)
        for one in session.session.get_inputs()
    ]


def random_inputs(of: Signature, seed: int = 0) -> tuple[Any, ...]:
    """One array for each input: normal numbers, or 0 and 1 where they are integers.

    Raises:
        InputError: an input of a type that can't be drawn, such as text.
    """
    draw = np.random.default_rng(seed)
    found = []
    for shape, kind in of:
        if kind not in TYPES:
            raise InputError(f"inputs of {kind} can't be drawn; wanted one of {', '.join(TYPES)}")
        real = np.dtype(TYPES[kind]).kind == "f"
        values = draw.standard_normal(shape) if real else draw.integers(0, 2, shape)
        found.append(values.astype(TYPES[kind]))
    return tuple(found)


def require_runs(name: str, session: OnnxSession, inputs: tuple[Any, ...]) -> None:
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
