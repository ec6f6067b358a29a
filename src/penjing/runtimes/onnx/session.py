"""An ONNX file in a session of ONNX Runtime, on the execution provider that is to compute it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from penjing.contract import Array, Input
from penjing.device.runner import OnnxFile
from penjing.errors import InputError, MachineError, first_line
from penjing.quiet import quiet_below
from penjing.runtimes.interface import by_sample, handed_back, in_order
from penjing.runtimes.notes import read_structure
from penjing.runtimes.onnx.export import BATCH, OUTPUTS_KEY

NO_MODEL = ("INVALID_PROTOBUF", "No graph was found")
"""Words of ONNX Runtime's about bytes that are something else."""
FUSE_NO_INTEGERS = "session.disable_quant_qdq"
TELL_PLACEMENT = "session.record_ep_graph_assignment_info"


@dataclass(frozen=True)
class Provider:
    """An execution provider, and how a session is handed to it.

    Attributes:
        name: as ONNX Runtime calls it.
        settings: its own options.
        plugin: the module that brings it as a library; empty if ONNX Runtime was built with it.
        one_by_one: whether all sizes must be known, so that a batch is run sample by sample.
        prepare: what to do before its libraries are loaded, such as load those they need.
        integer_kernels: whether it computes on integers; else on the real numbers that they stand
            for, and weights and biases become real when a file is loaded, rather than at each run.
    """

    name: str = "CPUExecutionProvider"
    settings: Mapping[str, str] = field(default_factory=dict)
    plugin: str = ""
    one_by_one: bool = False
    prepare: Callable[[], None] | None = None
    integer_kernels: bool = True

    def open(self, content: bytes, options: Any) -> Any:
        """ONNX Runtime's own session; what the provider doesn't take runs on the CPU.

        Where the provider fails while it runs, that is an error: ONNX Runtime's wrapper would make
        another session on the CPU and go on with that.
        """
        if self.name != CPU.name:
            options.add_session_config_entry(TELL_PLACEMENT, "1")
        if not self.integer_kernels:
            options.add_session_config_entry(FUSE_NO_INTEGERS, "1")
        if self.one_by_one:
            options.add_free_dimension_override_by_name(BATCH, 1)
        if self.plugin:
            with quiet_below():  # such libraries greet
                devices = _plugged_in(self.plugin, self.name)
                options.add_provider_for_devices(devices, dict(self.settings))
                return onnxruntime.InferenceSession(content, options, enable_fallback=0)
        if self.prepare is not None:
            self.prepare()
        names: list[Any] = [(self.name, dict(self.settings))]
        names += [CPU.name] if self.name != CPU.name else []
        return onnxruntime.InferenceSession(content, options, providers=names, enable_fallback=0)


CPU = Provider()


class OnnxSession:
    """An ONNX file loaded from bytes, so that it can open no other file."""

    def __init__(
        self,
        content: bytes,
        threads: int = 1,
        provider: Provider = CPU,
        profile_to: Path | None = None,
    ) -> None:
        def opened(content: bytes, options: Any) -> Any:
            options.log_severity_level = 4  # what goes wrong comes as an exception too
            if profile_to is not None:
                options.enable_profiling = True
                options.profile_file_prefix = str(profile_to)
            return provider.open(content, options)

        try:
            self.file = OnnxFile([content], threads, opened)
        except Exception as error:
            line = first_line(error)
            if any(words in line for words in NO_MODEL):
                line = "it is no ONNX model, or a part of one"
            raise InputError(f"ONNX Runtime can't load this file: {line}") from error
        self.session = self.file.session
        if provider.name not in self.session.get_providers():
            raise MachineError(f"ONNX Runtime can't use {provider.name} here")
        self.batched = _batched(content) if provider.one_by_one else None
        self.inputs = [Input(*fields) for fields in self.file.inputs]
        metadata = self.session.get_modelmeta().custom_metadata_map
        gives = len(self.session.get_outputs())
        told = metadata.get(OUTPUTS_KEY)
        self.structure = "tensor" if told is None else read_structure(told, gives)

    def run(self, inputs: Any) -> Any:
        """See `penjing.contract.Session`."""
        values = in_order(inputs, self.inputs)
        outputs = by_sample(self._run, values, self.batched) if self.batched else self._run(values)
        return handed_back(outputs, self.structure)

    def _run(self, values: list[Array]) -> list[Array]:
        outputs: list[Array] = self.file.run(*values)
        return outputs


@cache
def _plugged_in(plugin: str, name: str) -> list[Any]:
    """The provider's devices; its library is loaded once for the process."""
    onnxruntime.register_execution_provider_library(name, import_module(plugin).get_library_path())
    return [device for device in onnxruntime.get_ep_devices() if device.ep_name == name]


def _batched(content: bytes) -> list[bool]:
    """Of each input, whether its first size is that of the batch."""
    inputs = onnx.load_model_from_string(content).graph.input
    shapes = [value.type.tensor_type.shape.dim for value in inputs]
    return [bool(shape) and shape[0].dim_param == BATCH for shape in shapes]
