"""OpenVINO: Intel's runtime. Two files: the graph in `.xml`, and its weights in `.bin` beside it.

The integers are those of the ONNX model. One thing differs from the network: if a quantized value
is only added to another one, the CPU plugin adds first and rounds once.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import onnx
import openvino
from openvino._offline_transformations import apply_moc_transformations

from penjing.contract import Array, Artifact, Input, Placement, Saturating
from penjing.device.runner import OPENVINO_ON_CPU, OpenVinoFile
from penjing.errors import InputError
from penjing.files import write_atomically
from penjing.network import Network
from penjing.network.lowering.form import Form
from penjing.runtimes.contract import Runtime
from penjing.runtimes.interface import handed_back, in_order
from penjing.runtimes.notes import read_structure
from penjing.runtimes.onnx.export import BATCH, OUTPUTS_KEY, to_onnx, too_large_for_onnx
from penjing.runtimes.onnx.half import require_halves
from penjing.runtimes.openvino.saturation import saturating
from penjing.runtimes.signature import Signature, TensorSpec, settings_of, snippet
from penjing.targets import Target

OUTPUTS_PLACE = ["penjing", "outputs"]
"""The place in an IR's runtime information that says in which structure to return the outputs."""
COUNTED = re.compile(r"[A-Z][A-Za-z]+_\d+")
"""The name that OpenVINO gives a node without one. Its number continues from model to model, so
without renaming, a file's bytes would depend on which models were lowered before it."""
FORM = Form(biases=False, joins=False, recurrence=("gru", "lstm"))
"""OpenVINO would concatenate floats if a concatenation of quantized values were rounded again. Its
CPU plugin (2026.4) can't compile a plain RNN whose matrices are integers in the file."""
OTHERS: dict[str, dict[str, Any]] = {
    "GPU": {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"},
    "NPU": {"PERFORMANCE_HINT": "LATENCY"},  # it computes floats in float16
}
"""The settings of devices other than the CPU, whose settings are in the runner."""
NOT_RUN = {"Const", "Input", "Output"}
"""Kinds of nodes in the compiled graph that compute nothing."""


class OpenVino(Runtime):
    """Intel's OpenVINO, CPU plugin.

    >>> OpenVino().ending, OpenVino().floats
    ('.xml', ('float32', 'float16'))

    The CPU plugin computes in float32 whatever the file holds, because a session asks for it. It
    converts the weights of linear layers to float32 on each run: a small ViT took 1.05 times as
    long with float16, and 1.09 times as long with integer weights and float values.

    Attributes:
        device: OpenVINO's name of the plugin.
    """

    name: ClassVar[str] = "openvino"
    ending: ClassVar[str] = ".xml"
    device: ClassVar[str] = "CPU"
    floats: ClassVar[tuple[str, ...]] = ("float32", "float16")
    weights_alone: ClassVar[bool] = True
    overflows: ClassVar[bool] = True

    @classmethod
    def absent(cls) -> str | None:
        """See `Runtime.absent`."""
        here = [device.partition(".")[0] for device in openvino.Core().available_devices]
        return None if cls.device in here else f"OpenVINO finds no {cls.device} here"

    def files(self, path: Path) -> tuple[Path, ...]:
        """The graph and its weights."""
        return (path, path.with_suffix(".bin"))

    def problems(self, network: Network, target: Target, floats: str = "float32") -> list[str]:
        """See `Runtime.problems`. Also: weights beyond the 2 GiB that a protobuf can hold."""
        return super().problems(network, target, floats) + too_large_for_onnx(network)

    def lower(self, network: Network, path: Path, floats: str = "float32") -> Artifact:
        """Convert the ONNX model, with a free batch size.

        The weights are written first, so that they exist whenever the graph does.

        Raises:
            InputError: the ONNX exporter or OpenVINO lacks an operator, or a weight is beyond the
                range of float16. The message names it.
        """
        self.require(floats)
        exported = to_onnx(self.as_computed(network), FORM)
        if floats == "float16":
            require_halves(exported)
        model = _converted(exported)
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / "model.xml"
            openvino.save_model(model, made, compress_to_fp16=floats == "float16")
            contents = [file.read_bytes() for file in self.files(made)]
        for place, content in reversed(list(zip(self.files(path), contents, strict=True))):
            write_atomically(place, content)
        return self.artifact(path)

    def open(self, contents: list[bytes], threads: int = 1) -> OpenVinoSession:
        """See `Runtime.open`."""
        return OpenVinoSession(contents, threads, self.device)

    def signature(self, artifact: Artifact) -> Signature:
        """See `Runtime.signature`."""
        model = _opened([file.read_bytes() for file in self.files(artifact.path)]).model
        return Signature(*(tuple(map(_spec, ports)) for ports in (model.inputs, model.outputs)))

    def loading(self, path: Path, signature: Signature) -> str:
        """See `Runtime.loading`: compiled for the size of the batch, as `OpenVinoSession` does."""
        device, settings = (self.device, OTHERS.get(self.device, OPENVINO_ON_CPU))
        return snippet(
            ["import numpy", "import openvino"],
            ["core = openvino.Core()", f'model = core.read_model("{path}")'],
            signature.arrays(),
            signature.fed(),
            ["model.reshape({name: value.shape for name, value in inputs.items()})"],
            settings_of(settings),
            [f'run = core.compile_model(model, "{device}", settings)'],
            ["results = run(inputs)"],
            signature.taken(),
        )

    def saturating(self, artifact: Artifact) -> list[Saturating]:
        """See `Runtime.saturating`."""
        return saturating(_opened([file.read_bytes() for file in self.files(artifact.path)]).model)

    def placement(self, artifact: Artifact) -> list[Placement]:
        """See `Runtime.placement`. It is the plugin's compiled graph without constants.

        The operator is the plugin's name with the type in which it computes: `Convolution u8`.
        """
        return self.load(artifact).placement()  # type: ignore[attr-defined,no-any-return]

    def weight_bytes(self, artifact: Artifact) -> int:
        """See `Runtime.weight_bytes`. Counts all constants, also shapes that operators read."""
        model = _opened([file.read_bytes() for file in self.files(artifact.path)]).model
        constants = [node for node in model.get_ops() if node.get_type_name() == "Constant"]
        return sum(int(constant.get_byte_size()) for constant in constants)


class OnGpu(OpenVino):
    """Intel's GPUs, by OpenVINO.

    >>> OnGpu().device
    'GPU'
    """

    name: ClassVar[str] = "openvino-gpu"
    device: ClassVar[str] = "GPU"


class OnNpu(OpenVino):
    """Intel's NPUs, by OpenVINO.

    >>> OnNpu().device
    'NPU'
    """

    name: ClassVar[str] = "openvino-npu"
    device: ClassVar[str] = "NPU"


class OpenVinoSession:
    """An OpenVINO model loaded from bytes, so that it can open no other file.

    It is compiled once for each batch size that is run. The plugin is faster with known sizes.
    With free sizes, OpenVINO 2026.4 can also lose the bias of a convolution whose output's shape is
    read (any `ShapeOf` of the batch size may be moved there).
    """

    def __init__(self, contents: list[bytes], threads: int = 1, device: str = "CPU") -> None:
        self.file = _opened(contents, threads, device)
        self.inputs = [Input(*fields) for fields in self.file.inputs]
        model, self.structure = self.file.model, "tensor"
        if model.has_rt_info(OUTPUTS_PLACE):
            told = str(model.get_rt_info(OUTPUTS_PLACE).value)
            self.structure = read_structure(told, len(model.outputs))
        self._request()  # so that a file that can't be compiled fails now

    def run(self, inputs: Any) -> Any:
        """See `penjing.contract.Session`."""
        values = in_order(inputs, self.inputs)
        try:
            outputs: list[Array] = self.file.run(*values)
        except RuntimeError as error:
            raise _cannot_run([value.shape for value in values], error) from error
        return handed_back(outputs, self.structure)

    def placement(self) -> list[Placement]:
        """See `OpenVino.placement`."""
        placed = []
        once: set[str] = set()
        compiled = self._request().get_compiled_model()
        device = compiled.get_property("EXECUTION_DEVICES")[0].lower()
        for node in compiled.get_runtime_model().get_ordered_ops():
            name, kind = node.get_friendly_name(), _said(node, "layerType")
            sources = {value.get_node().get_friendly_name() for value in node.input_values()}
            if kind == "Const" or (sources and sources <= once):
                once.add(name)
            elif kind not in NOT_RUN:
                operator = f"{kind} {_said(node, 'runtimePrecision')}"
                placed.append(Placement(name, operator, device))
        return placed

    def _request(self) -> Any:
        """A request for inputs of the file's own shapes."""
        shapes = tuple(wanted.shape for wanted in self.inputs)
        try:
            return self.file.request(shapes)
        except RuntimeError as error:
            raise _cannot_run(shapes, error) from error


def _spec(port: Any) -> TensorSpec:
    sizes = port.get_partial_shape()
    shape = tuple(size.get_length() if size.is_static else BATCH for size in sizes)
    return TensorSpec(port.get_any_name(), shape, str(port.get_element_type().to_dtype()))


def _converted(model: onnx.ModelProto) -> openvino.Model:
    """The ONNX model as an OpenVINO model, simplified as OpenVINO's converter does before saving.

    The converter itself (`openvino.convert_model`) isn't called, because it reports each use.
    """
    structure = {entry.key: entry.value for entry in model.metadata_props}[OUTPUTS_KEY]
    del model.metadata_props[:]  # else OpenVINO keeps it twice
    try:
        made = openvino.Core().read_model(model.SerializeToString())
        apply_moc_transformations(made, cf=True)
    except RuntimeError as error:
        raise InputError(f"OpenVINO can't convert this network: {_line(error)}") from error
    made.set_rt_info(structure, OUTPUTS_PLACE)
    for number, node in enumerate(made.get_ordered_ops()):
        if COUNTED.fullmatch(node.get_friendly_name()):
            node.set_friendly_name(f"{node.get_type_name()}_{number}")
    return made


def _opened(contents: list[bytes], threads: int = 1, device: str = "CPU") -> OpenVinoFile:
    other = (device, OTHERS[device]) if device in OTHERS else None
    try:
        return OpenVinoFile(contents, threads, other)
    except RuntimeError as error:
        raise InputError(f"OpenVINO can't load this file: {_line(error)}") from error


def _cannot_run(shapes: Sequence[tuple[int, ...]], error: Exception) -> InputError:
    sizes = ", ".join(map(str, shapes))
    line = f"OpenVINO can't run this file on inputs of shape {sizes}: {_line(error)}"
    return InputError(line)


def _line(error: Exception) -> str:
    """OpenVINO's message without the lines that name places in OpenVINO's source."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(("Exception from", "Check '"))]
    return " ".join(told or lines)[:300]


def _said(node: Any, key: str) -> str:
    """An entry of a compiled node's runtime information."""
    return str(node.get_rt_info()[key].value)
