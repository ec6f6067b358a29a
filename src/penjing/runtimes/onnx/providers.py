"""ONNX Runtime's other execution providers: an ONNX file on GPUs, NPUs and other kernels.

A provider runs the operators that it supports, and ONNX Runtime's CPU kernels run the rest. The
placement says which are which. If a provider needs its own kind of integers, its file differs.
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
"""On a GPU, only messages of this severity are shown. Others report errors from which ONNX Runtime
recovers, such as each kernel that cuDNN can't plan before it finds another."""
HEXAGONS = {
    "hexagon-v73": {"htp_arch": "73", "soc_model": "43"},  # Snapdragon 8 Gen 2
    "hexagon-v75": {"htp_arch": "75", "soc_model": "57"},  # Snapdragon 8 Gen 3
    "hexagon-v79": {"htp_arch": "79", "soc_model": "69"},  # Snapdragon 8 Elite
}
"""The settings of each NPU. AI Engine Direct computes floats only if it knows the chip."""


@cache
def _cuda() -> None:
    """Load CUDA and cuDNN from NVIDIA's Python packages, if these are installed."""
    with quiet_below():  # it prints what is missing
        onnxruntime.preload_dlls()
    onnxruntime.set_default_logger_severity(FATAL)


@cache
def _tensorrt() -> None:
    """Load TensorRT as well, from NVIDIA's Python packages."""
    _cuda()
    with suppress(ImportError), quiet_below():
        import_module("tensorrt")


class OnProvider(OfOnnx):
    """ONNX Runtime with an execution provider that comes before the CPU's.

    Times of layers aren't available, because ONNX Runtime's clocks don't wait for a device.

    Attributes:
        provider: the provider, with its settings.
        unit: the name of its unit in a placement.
    """

    provider: Provider
    unit: ClassVar[str]

    @classmethod
    @cache
    def absent(cls) -> str | None:
        """See `Runtime.absent`. It tries to open a file of one operator."""
        try:
            with quiet_below():
                cls().open([_smallest_file()])
        except PenjingError as error:
            return str(error)
        return None

    def problems(self, network: Network, target: Target, floats: str = "float32") -> list[str]:
        """See `Runtime.problems`. Also: outputs without a batch dimension, if samples run alone."""
        problems = super().problems(network, target, floats)
        return problems + (not_by_sample(network) if self.provider.one_by_one else [])

    def open(self, contents: list[bytes], threads: int = 1) -> OnnxSession:
        """See `Runtime.open`."""
        return OnnxSession(contents[0], threads, self.provider)

    def placement(self, artifact: Artifact) -> list[Placement]:
        """See `Runtime.placement`. The session says which nodes each provider runs.

        QuantizeLinear and DequantizeLinear on the provider are left out, because they are part of
        the integer operators next to them.
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
                why = "" if here else f"{self.provider.name} doesn't support it"
                unit = self.unit if here else "cpu"
                placement = Placement(node.name, node.op_type, unit, why)
                placed.append((places.get(node.name, len(places)), placement))
        return [placement for _, placement in sorted(placed, key=lambda pair: pair[0])]


class OnCuda(OnProvider):
    """NVIDIA's GPUs by CUDA and cuDNN. It computes convolutions and products only on floats.

    >>> OnCuda().provider.name, OnCuda().unit
    ('CUDAExecutionProvider', 'gpu')

    A float32 file is computed in float32, not in TF32 as the provider would choose by default. TF32
    has only ten bits of precision; if that is enough, use float16.
    """

    name: ClassVar[str] = "onnxruntime-cuda"
    half_values: ClassVar[bool] = True
    provider = Provider(
        "CUDAExecutionProvider", {"use_tf32": "0"}, prepare=_cuda, integer_kernels=False
    )
    unit: ClassVar[str] = "gpu"


class OnTensorRt(OnProvider):
    """NVIDIA's GPUs by TensorRT, which supports no zero points.

    >>> OnTensorRt().constraints["symmetric"]
    True
    """

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
        """See `Runtime.problems`. Also: values with a zero point."""
        values = value_qparams(network)
        uneven = [
            qparams
            for qparams in values
            if qparams.zero_point * 2 != qparams.high - qparams.low + 1
        ]
        problems = super().problems(network, target, floats)
        if uneven:
            problems.append(
                f"{len(uneven)} of {len(values)} values are quantized with a zero point, which "
                "TensorRT doesn't support; use Quantize(symmetric=True)"
            )
        return problems


class OnOpenVino(OnProvider):
    """Intel's CPUs by OpenVINO, as a provider of ONNX Runtime.

    >>> OnOpenVino().provider.name
    'OpenVINOExecutionProvider'
    """

    name: ClassVar[str] = "onnxruntime-openvino"
    provider = Provider("OpenVINOExecutionProvider", {"device_type": "CPU"}, one_by_one=True)
    unit: ClassVar[str] = "openvino"

    def open(self, contents: list[bytes], threads: int = 1) -> OnnxSession:
        """See `Runtime.open`. The provider has its own threads."""
        settings = {**self.provider.settings, "num_of_threads": str(threads)}
        return OnnxSession(contents[0], threads, replace(self.provider, settings=settings))


@dataclass(frozen=True)
class OnQnn(OnProvider):
    """Qualcomm's Hexagon NPUs by AI Engine Direct (QNN). Floats are computed in float16.

    On x86-64 the same library simulates the NPU. Its outputs and its placement are those that it
    predicts for the device, but its times mean nothing.

    >>> OnQnn.of("hexagon-v79").provider.settings["htp_arch"]
    '79'

    Attributes:
        provider: the provider. Its settings name the NPU's generation and the chip.
    """

    name: ClassVar[str] = "onnxruntime-qnn"
    constraints: ClassVar[Mapping[str, Any]] = {"outputs": True, "overflow_fix": False}
    overflows: ClassVar[bool] = False
    stand_in: ClassVar[bool] = platform.machine() not in ARM
    unit: ClassVar[str] = "npu (simulated)" if stand_in else "npu"

    provider: Provider = field(default_factory=lambda: _hexagon("hexagon-v75"))

    @classmethod
    def of(cls, npu: str) -> OnQnn:
        """The runtime for an NPU in `HEXAGONS`."""
        return cls(_hexagon(npu))

    def on(self, target: Target) -> OnQnn:
        """The runtime for the target's NPU."""
        return self.of(target.npu) if target.npu in HEXAGONS else self


class OnCoreMl(OnProvider):
    """Apple's CPUs, GPUs and Neural Engine by Core ML.

    >>> OnCoreMl().provider.name
    'CoreMLExecutionProvider'
    """

    name: ClassVar[str] = "onnxruntime-coreml"
    provider = Provider("CoreMLExecutionProvider", one_by_one=True)
    unit: ClassVar[str] = "coreml"


class OnNnapi(OnProvider):
    """Android's accelerators by its Neural Networks API.

    >>> OnNnapi().provider.name
    'NnapiExecutionProvider'
    """

    name: ClassVar[str] = "onnxruntime-nnapi"
    provider = Provider("NnapiExecutionProvider", one_by_one=True)
    unit: ClassVar[str] = "nnapi"


class OnXnnpack(OnProvider):
    """Arm and x86 CPUs by XNNPACK, as a provider of ONNX Runtime.

    >>> OnXnnpack().provider.name
    'XnnpackExecutionProvider'
    """

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
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)  # any version reads
    made: bytes = model.SerializeToString()
    return made
