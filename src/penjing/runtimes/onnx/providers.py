"""ONNX Runtime's other execution providers: one ONNX file on GPUs, NPUs and others' kernels.

A provider takes the operators that it can, and ONNX Runtime's CPU kernels the rest; the placement
says which. Where a provider needs its own kind of integers, the file is another one.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from typing import Any, ClassVar

import onnx
import onnxruntime
import torch

from penjing.contract import Artifact, Placement
from penjing.errors import PenjingError
from penjing.network import Network
from penjing.network.graph.qparams import value_qparams
from penjing.network.lowering.form import Form
from penjing.quiet import quiet_below
from penjing.runtimes.interface import not_by_sample
from penjing.runtimes.onnx.file import OfOnnx
from penjing.runtimes.onnx.session import OnnxSession, Provider
from penjing.targets import Target

ROUNDING = {"QuantizeLinear", "DequantizeLinear"}
ARM = {"aarch64", "arm64", "ARM64"}
FATAL = 4
"""The severity from which on messages are let through on a GPU: those below tell of errors from
which ONNX Runtime goes on, such as of each kernel that cuDNN can't plan until it finds another."""
HEXAGONS = {
    "hexagon-v73": {"htp_arch": "73", "soc_model": "43"},  # Snapdragon 8 Gen 2
    "hexagon-v75": {"htp_arch": "75", "soc_model": "57"},  # Snapdragon 8 Gen 3
    "hexagon-v79": {"htp_arch": "79", "soc_model": "69"},  # Snapdragon 8 Elite
}
"""By NPU, its settings: AI Engine Direct computes floats only for a chip that it is told."""


@cache
def _cuda() -> None:
    """Load CUDA and cuDNN from NVIDIA's Python packages, if they lie there."""
    with quiet_below():  # it prints what it doesn't find
        onnxruntime.preload_dlls()
    onnxruntime.set_default_logger_severity(FATAL)


@cache
def _tensorrt() -> None:
    """Load TensorRT from NVIDIA's Python packages too."""
    _cuda()
    with suppress(ImportError), quiet_below():
        import_module("tensorrt")


class OnProvider(OfOnnx):
    """ONNX Runtime with an execution provider before the CPU's.

    What a layer takes isn't told: ONNX Runtime's clocks don't wait for a device.

    Attributes:
        provider: how a session is handed to it.
        unit: what computes there, as a placement calls it.
    """

    provider: Provider
    unit: ClassVar[str]

    @classmethod
    @cache
    def absent(cls) -> str | None:
        """See `Runtime.absent`: found out by opening a file of one operator."""
        try:
            with quiet_below():
                cls().open([_smallest_file()])
        except PenjingError as error:
            return str(error)
        return None

    def problems(self, network: Network, target: Target, floats: str = "float32") -> list[str]:
        """As ONNX Runtime's own, and outputs of a batch as a whole where samples run one by one."""
        problems = super().problems(network, target, floats)
        return problems + (not_by_sample(network) if self.provider.one_by_one else [])

    def open(self, contents: list[bytes], threads: int = 1) -> OnnxSession:
        """See `Runtime.open`."""
        return OnnxSession(contents[0], threads, self.provider)

    def placement(self, artifact: Artifact) -> list[Placement]:
        """See `Runtime.placement`: what the session says that each provider took.

        Where the provider takes a rounding, that is part of the integer operators beside it.
        """
        content = artifact.path.read_bytes()
        order = [node.name for node in onnx.load_model_from_string(content).graph.node]
        places = {name: place for place, name in enumerate(order)}
        placed: list[tuple[int, Placement]] = []
        session = OnnxSession(content, provider=self.provider).session
        for part in session.get_provider_graph_assignment_info():
            here = part.ep_name == self.provider.name
            for node in part.get_nodes():
                if here and node.op_type in ROUNDING:
                    continue
                why = "" if here else f"{self.provider.name} doesn't take it, or it computes sizes"
                unit = self.unit if here else "cpu"
                placement = Placement(node.name, node.op_type, unit, why)
                placed.append((places.get(node.name, len(places)), placement))
        return [placement for _, placement in sorted(placed, key=lambda pair: pair[0])]


class OnCuda(OnProvider):
    """NVIDIA's GPUs by CUDA and cuDNN, which computes no convolution or product on integers.

    A file of float32 is computed in float32, not in the TF32 that the provider would choose, whose
    numbers have ten bits: float16 is there for whom that is enough.
    """

    name: ClassVar[str] = "onnxruntime-cuda"
    half_values: ClassVar[bool] = True
    provider = Provider(
        "CUDAExecutionProvider", {"use_tf32": "0"}, prepare=_cuda, integer_kernels=False
    )
    unit: ClassVar[str] = "gpu"


class OnTensorRt(OnProvider):
    """NVIDIA's GPUs by TensorRT, whose integers have no zero point."""

    name: ClassVar[str] = "onnxruntime-tensorrt"
    half_values: ClassVar[bool] = True
    constraints: ClassVar[Mapping[str, Any]] = {"symmetric": True, "overflow_fix": False}
    overflows: ClassVar[bool] = False
    form: ClassVar[Form] = Form(torch.int8)
    provider = Provider(
        "TensorrtExecutionProvider", {"trt_int8_enable": "1"}, one_by_one=True, prepare=_tensorrt
    )
    unit: ClassVar[str] = "gpu"

    def problems(self, network: Network, target: Target, floats: str = "float32") -> list[str]:
        """As the other providers', and values with a zero point."""
        values = value_qparams(network)
        uneven = [
            qparams
            for qparams in values
            if qparams.zero_point * 2 != qparams.high - qparams.low + 1
        ]
        problems = super().problems(network, target, floats)
        if uneven:
            problems.append(
                f"{len(uneven)} of {len(values)} values are rounded to grids with a zero point, "
                "which TensorRT has not: Quantize(symmetric=True)"
            )
        return problems


class OnOpenVino(OnProvider):
    """Intel's CPUs, by OpenVINO within ONNX Runtime."""

    name: ClassVar[str] = "onnxruntime-openvino"
    provider = Provider("OpenVINOExecutionProvider", {"device_type": "CPU"}, one_by_one=True)
    unit: ClassVar[str] = "openvino"

    def open(self, contents: list[bytes], threads: int = 1) -> OnnxSession:
        """See `Runtime.open`; the provider has threads of its own."""
        settings = {**self.provider.settings, "num_of_threads": str(threads)}
        return OnnxSession(contents[0], threads, replace(self.provider, settings=settings))


@dataclass(frozen=True)
class OnQnn(OnProvider):
    """Qualcomm's Hexagon NPUs, by its AI Engine Direct (QNN); floats are computed in float16.

    On x86-64 the same library simulates the NPU: decisions and placement are what it says of the
    device, and the time means nothing.

    Attributes:
        provider: the NPU's generation and the chip that it is in, among its settings.
    """

    name: ClassVar[str] = "onnxruntime-qnn"
    constraints: ClassVar[Mapping[str, Any]] = {"outputs": True, "overflow_fix": False}
    overflows: ClassVar[bool] = False
    stand_in: ClassVar[bool] = platform.machine() not in ARM
    unit: ClassVar[str] = "npu (simulated)" if stand_in else "npu"

    provider: Provider = field(default_factory=lambda: _hexagon("hexagon-v75"))

    @classmethod
    def of(cls, npu: str) -> OnQnn:
        """For an NPU that `HEXAGONS` has."""
        return cls(_hexagon(npu))

    def on(self, target: Target) -> OnQnn:
        """For the target's own NPU."""
        return self.of(target.npu) if target.npu in HEXAGONS else self


class OnCoreMl(OnProvider):
    """Apple's CPUs, GPUs and Neural Engine, by Core ML."""

    name: ClassVar[str] = "onnxruntime-coreml"
    provider = Provider("CoreMLExecutionProvider", one_by_one=True)
    unit: ClassVar[str] = "coreml"


class OnNnapi(OnProvider):
    """Android's accelerators, by its Neural Networks API."""

    name: ClassVar[str] = "onnxruntime-nnapi"
    provider = Provider("NnapiExecutionProvider", one_by_one=True)
    unit: ClassVar[str] = "nnapi"


class OnXnnpack(OnProvider):
    """Arm and x86 CPUs, by XNNPACK within ONNX Runtime."""

    name: ClassVar[str] = "onnxruntime-xnnpack"
    provider = Provider("XnnpackExecutionProvider", one_by_one=True)
    unit: ClassVar[str] = "xnnpack"


def _hexagon(npu: str) -> Provider:
    chosen = {"backend_type": "htp", "offload_graph_io_quantization": "0", **HEXAGONS[npu]}
    return Provider("QNNExecutionProvider", chosen, plugin="onnxruntime_qnn", one_by_one=True)


def _smallest_file() -> bytes:
    """A model of one operator."""
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])], "smallest", value[:1], value[1:]
    )
    opset = onnx.helper.make_opsetid("", 17)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)  # all read that
    made: bytes = model.SerializeToString()
    return made
