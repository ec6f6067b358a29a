"""A `.tflite` file in LiteRT's interpreter: real numbers in and out, whatever the file takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from penjing.contract import Array, Input
from penjing.errors import InputError, first_line
from penjing.quiet import quiet_below
from penjing.runtimes import notes, tflite_file
from penjing.runtimes.interface import by_sample, handed_back, in_order


class LiteRtSession:
    """A file loaded from bytes, so that it can open no other file.

    The file holds one sample; a batch is run sample by sample. Where it takes or gives integers
    on a grid, the session rounds its inputs to that grid and hands real numbers back.
    """

    def __init__(self, content: bytes, threads: int = 1) -> None:
        known = tflite_file.noted(tflite_file.read(content))
        self.interpreter = interpreter(content, threads)
        self.takes = self.interpreter.get_input_details()
        self.gives = self.interpreter.get_output_details()
        as_the_model: list[dict[str, Any]] = [
            {"name": one["name"], "dtype": _dtype(one), "batched": True} for one in self.takes
        ]
        self.structure = "tensor" if len(self.gives) == 1 else "tuple"
        if known is not None:
            told = known if isinstance(known, dict) else {}
            self.structure = notes.structure(told.get("outputs"), len(self.gives))
            as_the_model = notes.named_inputs(told.get("inputs"), len(self.takes))
        self.batched = [bool(one["batched"]) for one in as_the_model]
        self.inputs = [
            Input(one["name"], tuple(map(int, details["shape"])), one["dtype"])
            for one, details in zip(as_the_model, self.takes, strict=True)
        ]

    def run(self, inputs: Any) -> Any:
        """See `penjing.contract.Session`."""
        found = by_sample(self._sample, in_order(inputs, self.inputs), self.batched)
        return handed_back(found, self.structure)

    def _sample(self, values: list[Array]) -> list[Array]:
        for one, to in zip(values, self.takes, strict=True):
            self.interpreter.set_tensor(to["index"], _rounded(one, to))
        self.interpreter.invoke()
        return [_real(self.interpreter.get_tensor(one["index"]), one) for one in self.gives]


def interpreter(content: bytes, threads: int = 1) -> Interpreter:
    """LiteRT's interpreter with its memory laid out.

    Raises:
        InputError: it can't load the file.
    """
    try:
        with quiet_below():
            made = Interpreter(model_content=content, num_threads=threads)
            made.allocate_tensors()
    except Exception as error:
        raise InputError(f"LiteRT can't load this file: {first_line(error)}") from error
    return made


def _grid(details: dict[str, Any]) -> tuple[float, int] | None:
    """Scale and zero point of a tensor of integers that stand for real numbers."""
    scale, zero = details["quantization"]
    return (float(scale), int(zero)) if scale else None


def _dtype(details: dict[str, Any]) -> str:
    return "float32" if _grid(details) else np.dtype(details["dtype"]).name


def _rounded(value: Array, to: dict[str, Any]) -> Array:
    """The values in the file's type; real numbers on its grid where it has one, ties to even."""
    grid = _grid(to)
    codes: Array = np.asarray(value)
    if grid is not None:
        limits = np.iinfo(to["dtype"])
        steps = np.rint(codes / np.float32(grid[0])) + grid[1]
        codes = np.clip(steps, limits.min, limits.max)
    return codes.astype(to["dtype"], copy=False)


def _real(codes: Array, of: dict[str, Any]) -> Array:
    grid = _grid(of)
    if grid is None:
        return codes
    found: Array = (codes.astype(np.float32) - grid[1]) * np.float32(grid[0])
    return found


def delegated(content: bytes) -> set[int]:
    """The places of the operators that the interpreter gave to its delegate, XNNPACK.

    A delegate's node stands for all that is computed between its inputs and its outputs.
    """
    nodes = interpreter(content)._get_ops_details()
    maker = {
        int(output): node
        for node in nodes
        if node["op_name"] != "DELEGATE"
        for output in node["outputs"]
    }
    found: set[int] = set()
    for delegate in (node for node in nodes if node["op_name"] == "DELEGATE"):
        given = set(map(int, delegate["inputs"]))
        waiting = list(map(int, delegate["outputs"]))
        while waiting:
            tensor = waiting.pop()
            if tensor in given or tensor not in maker or int(maker[tensor]["index"]) in found:
                continue
            found.add(int(maker[tensor]["index"]))
            waiting += map(int, maker[tensor]["inputs"])
    return found
