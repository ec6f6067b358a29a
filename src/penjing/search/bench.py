"""Bench: files side by side, interleaved."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from penjing.contract import Latency
from penjing.errors import InputError
from penjing.measure.latency import compare
from penjing.runtimes.onnxruntime import OnnxSession

TYPES = {"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(double)": "float64"}


def bench(paths: list[Path], seconds: float = 5.0, seed: int = 0) -> dict[str, Latency]:
    """Time ONNX files against the first one, batch 1, one thread, on seeded random inputs.

    Raises:
        InputError: a file is missing or can't be loaded, or inputs differ.
    """
    sessions, shapes = {}, {}
    for path in paths:
        if not path.is_file():
            raise InputError(f"no file {path}")
        name = str(path)
        while name in sessions:
            name += " (again)"
        try:
            sessions[name] = OnnxSession(path.read_bytes())
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        shapes[name] = [
            ([1 if not isinstance(n, int) else n for n in one.shape], one.type)
            for one in sessions[name].session.get_inputs()
        ]
    first = next(iter(sessions))
    for name, shape in shapes.items():
        if shape != shapes[first]:
            raise InputError(f"inputs differ: {first} takes {shapes[first]}, {name} takes {shape}")
    draw = np.random.default_rng(seed)
    inputs = tuple(
        draw.standard_normal(shape).astype(TYPES.get(kind, "float32"))
        for shape, kind in shapes[first]
    )
    return compare(sessions, inputs, first, seconds, seed)
