"""ExecuTorch: PyTorch's runtime for devices. One `.pte` file, run by XNNPACK where that can.

A file takes one sample, for XNNPACK fuses integers only where all sizes are known; a session runs
the samples of a batch one by one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from penjing.contract import Array, Artifact, Input, Placement
from penjing.device.runner import ExecuTorchFile
from penjing.errors import InputError, first_line
from penjing.files import write_atomically
from penjing.network import Network
from penjing.network.as_convolutions import write_as_convolutions
from penjing.network.complex import without_complex
from penjing.network.integers import Form, with_integers
from penjing.network.plain import write_plainly
from penjing.network.shapes import shapes
from penjing.quiet import quiet, quiet_below
from penjing.runtimes import notes
from penjing.runtimes.contract import Runtime
from penjing.runtimes.executorch_file import bytes_of_weights, placements
from penjing.runtimes.executorch_xnnpack_form import for_xnnpack
from penjing.runtimes.interface import (
    by_sample,
    handed_back,
    in_order,
    input_names,
    not_by_sample,
    one_sample,
    structure_of,
)
from penjing.strict_json import parse
from penjing.targets import Target
from penjing.task import as_call, batch_dims

INTERFACE = "penjing_interface"
"""Name of the method that gives names of inputs and the structure of outputs, as bytes of JSON."""
FORWARD = "forward"
IN_USE: set[int] = set()
"""How many threads this process's pool has, once a session was loaded."""


class ExecuTorch(Runtime):
    """ExecuTorch with its XNNPACK delegate.

    Its files hold neither float16 nor integer weights alone. XNNPACK runs a network of float16, but
    what writes its part of a file (ExecuTorch 1.5) keeps the weights of convolutions in float32,
    and so it does with weights on a grid where values have none.
    """

    name: ClassVar[str] = "executorch"
    ending: ClassVar[str] = ".pte"
    demands: ClassVar[Mapping[str, Any]] = {"outputs": True, "overflow_fix": False}

    def problems(self, network: Network, target: Target, floats: str = "float32") -> list[str]:
        """A target without this runtime or its integers, and outputs of a batch as a whole."""
        return super().problems(network, target, floats) + not_by_sample(network)

    def lower(self, network: Network, path: Path, floats: str = "float32") -> Artifact:
        """Export for one sample, and let XNNPACK take what it can.

        Raises:
            InputError: an operator that ExecuTorch lacks, which the message names; or the file
                can't be loaded, for XNNPACK checks only then what it took.
        """
        self.require(floats)
        mode = network.training
        network.eval()
        try:
            with torch.no_grad(), quiet():
                content = _program(network)
                ExecuTorchFile([content])
        except Exception as error:
            raise InputError(f"ExecuTorch can't take this network: {first_line(error)}") from error
        finally:
            network.train(mode)
        write_atomically(path, content)
        return self.artifact(path)

    def open(self, contents: list[bytes], threads: int = 1) -> ExecuTorchSession:
        """See `Runtime.open`; all sessions of a process share one pool of threads."""
        return ExecuTorchSession(contents[0], threads)

    def placement(self, artifact: Artifact) -> list[Placement]:
        """See `Runtime.placement`: as the file says, with the type of what each operator gives."""
        return placements(artifact.path.read_bytes(), FORWARD)

    def weight_bytes(self, artifact: Artifact) -> int:
        """See `Runtime.weight_bytes`."""
        return bytes_of_weights(artifact.path.read_bytes(), FORWARD)


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
        found = by_sample(self._sample, in_order(inputs, self.inputs), self.batched)
        return handed_back(found, self.structure)

    def _sample(self, values: list[Array]) -> list[Array]:
        arrays = [np.ascontiguousarray(one) for one in values]
        try:
            return self.file.sample(arrays)
        except RuntimeError as error:
            given = ", ".join(str(one.shape) for one in arrays)
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


def _program(network: Network) -> bytes:
    """The bytes of a `.pte` file."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    moved = write_as_convolutions(without_complex(network), ["moves"])
    real = with_integers(moved, Form(torch.int8))
    form = for_xnnpack(write_plainly(real, shapes(real)))
    args, kwargs = one_sample(network.example)
    exported = torch.export.export(form, args, kwargs)
    told = torch.tensor(list(json.dumps(_interface(network)).encode()), dtype=torch.uint8)
    edge = to_edge_transform_and_lower(
        exported, partitioner=[XnnpackPartitioner()], constant_methods={INTERFACE: told}
    )
    return bytes(edge.to_executorch().buffer)


def _interface(network: Network) -> dict[str, Any]:
    """Names, shapes and types of the inputs of one sample; how outputs are handed back."""
    args, kwargs = as_call(network.example)
    dims = batch_dims((args, kwargs), 0)
    leaves = torch.utils._pytree.tree_leaves((args, kwargs))
    names = input_names(kwargs, len(leaves))
    inputs = [
        (name, [1, *one.shape[1:]] if dims[id(one)] else list(one.shape), str(one.dtype)[6:])
        for name, one in zip(names, leaves, strict=True)
    ]
    by_sample = [dims[id(one)] is not None for one in leaves]
    return {"inputs": inputs, "by_sample": by_sample, "outputs": structure_of(_outputs(network))}


def _of_unknown_origin(takes: Sequence[Any], gives: int) -> dict[str, Any]:
    """As `_interface`, from what every file tells: inputs without names, outputs in a tuple."""
    names = input_names((), len(takes))
    inputs = [(name, shape, kind) for name, (_, shape, kind) in zip(names, takes, strict=True)]
    structure = "tensor" if gives == 1 else "tuple"
    return {"inputs": inputs, "by_sample": [True] * len(inputs), "outputs": structure}


def _outputs(network: Network) -> Any:
    args, kwargs = as_call(network.example)
    with torch.no_grad():
        return network(*args, **kwargs)
