"""A `.pte` file in ExecuTorch's runtime, as XNNPACK runs it here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from penjing.contract import Array, Input
from penjing.device.runner import ExecuTorchFile
from penjing.errors import InputError, first_line
from penjing.quiet import quiet, quiet_below
from penjing.runtimes import notes
from penjing.runtimes.interface import by_sample, handed_back, in_order, numbered
from penjing.strict_json import parse

INTERFACE = "penjing_interface"
"""Name of the method that gives names of inputs and the structure of outputs, as bytes of JSON."""
IN_USE: set[int] = set()
"""How many threads this process's pool has, once a session was loaded."""


class ExecuTorchSession:
    """A program loaded from bytes, verified, so that it can open no other file."""

    def __init__(self, content: bytes, threads: int = 1) -> None:
        _use_threads(threads)
        try:
            with quiet():
                self.file = ExecuTorchFile([content])
                gives = self.file.method.metadata.num_outputs()
                interface = _of_unknown_origin(self.file.inputs, gives)
                if INTERFACE in self.file.program.method_names:
                    told = self.file.program.load_method(INTERFACE).execute(())[0]
                    interface = notes.interface(parse(bytes(told.tolist()), notes.WHAT), gives)
        except (RuntimeError, AttributeError) as error:
            raise InputError(f"ExecuTorch can't load this file: {first_line(error)}") from error
        self.structure = interface["outputs"]
        self.batched: list[bool] = interface["by_sample"]
        self.inputs = [Input(name, tuple(s), kind) for name, s, kind in interface["inputs"]]

    def run(self, inputs: Any) -> Any:
        """See `penjing.contract.Session`."""
        outputs = by_sample(self._sample, in_order(inputs, self.inputs), self.batched)
        return handed_back(outputs, self.structure)

    def _sample(self, values: list[Array]) -> list[Array]:
        arrays = [np.ascontiguousarray(value) for value in values]
        try:
            return self.file.sample(arrays)
        except RuntimeError as error:
            given = ", ".join(str(array.shape) for array in arrays)
            raise InputError(
                f"ExecuTorch can't run this file on inputs of {given}: {first_line(error)}"
            ) from error


def _use_threads(threads: int) -> None:
    """Make the process's one pool of threads, which programs that are loaded keep hold of.

    The runner makes it anew for each file, for it has a process of its own.
    """
    from executorch.extension.pybindings import portable_lib

    has = portable_lib._threadpool_get_thread_count()
    if has != threads and IN_USE:
        raise InputError(
            f"ExecuTorch has one pool of threads for all sessions of a process; it has {has}, "
            f"wanted {threads}; start another process"
        )
    if has != threads:
        with quiet_below():  # it tells of it
            portable_lib._unsafe_reset_threadpool(threads)
    IN_USE.add(threads)


def _of_unknown_origin(takes: Sequence[Any], gives: int) -> dict[str, Any]:
    """As the interface, from what every file tells: inputs without names, outputs in a tuple."""
    names = numbered("input", len(takes))
    inputs = [(name, shape, kind) for name, (_, shape, kind) in zip(names, takes, strict=True)]
    structure = "tensor" if gives == 1 else "tuple"
    return {"inputs": inputs, "by_sample": [True] * len(inputs), "outputs": structure}
