"""The ONNX file, which all runtimes of ONNX Runtime share, whichever execution provider computes.

Integers are written as pairs of QuantizeLinear and DequantizeLinear, which ONNX Runtime fuses. The
weights are in the file itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import onnx

from penjing.contract import Artifact, Saturating
from penjing.files import write_atomically
from penjing.network import Network
from penjing.network.lowering.form import UNSIGNED, Form
from penjing.runtimes.contract import Runtime
from penjing.runtimes.onnx.codebooks import write_codebooks
from penjing.runtimes.onnx.export import to_onnx, too_large_for_onnx
from penjing.runtimes.onnx.fold_weights import fold_when_loaded
from penjing.runtimes.onnx.half import halve
from penjing.runtimes.onnx.loading import loading
from penjing.runtimes.onnx.packing import pack_weights
from penjing.runtimes.onnx.profile import weight_bytes
from penjing.runtimes.onnx.saturation import saturating
from penjing.runtimes.onnx.scan import require_plain
from penjing.runtimes.onnx.session import CPU, Provider
from penjing.runtimes.signature import Signature, TensorSpec
from penjing.targets import Target


class OfOnnx(Runtime):
    """A runtime whose artifact is one `.onnx` file.

    Attributes:
        provider: what computes, and how a session is handed to it.
        form: how its kernels expect integers.
    """

    ending: ClassVar[str] = ".onnx"
    provider: Provider = CPU
    form: ClassVar[Form] = UNSIGNED
    floats: ClassVar[tuple[str, ...]] = ("float32", "float16")
    overflows: ClassVar[bool] = True

    def problems(self, network: Network, target: Target, floats: str = "float32") -> list[str]:
        """See `Runtime.problems`. Also: weights beyond the 2 GiB that a protobuf can hold."""
        return super().problems(network, target, floats) + too_large_for_onnx(network)

    def lower(self, network: Network, path: Path, floats: str = "float32") -> Artifact:
        """Export with a free batch size. The weights are in the file itself.

        Raises:
            InputError: ONNX can't express an operator, or float16 can't hold a weight. The message
                names it.
        """
        self.require(floats)
        model = to_onnx(self.as_computed(network), self.form)
        write_codebooks(model)
        if floats == "float16":
            model = halve(model, self.half_values)
        fold_when_loaded(model)
        model = pack_weights(model)
        write_atomically(path, model.SerializeToString())
        return self.artifact(path)

    def signature(self, artifact: Artifact) -> Signature:
        """See `Runtime.signature`."""
        graph = onnx.load(artifact.path, load_external_data=False).graph
        return Signature(*(tuple(map(_spec, values)) for values in (graph.input, graph.output)))

    def loading(self, path: Path, signature: Signature) -> str:
        """See `Runtime.loading`."""
        return loading(path, signature, self.provider)

    def saturating(self, artifact: Artifact) -> list[Saturating]:
        """See `Runtime.saturating`."""
        model = onnx.load(artifact.path, load_external_data=False)
        return saturating(model) if self.overflows else []

    def look_over(self, contents: list[bytes]) -> None:
        """See `Runtime.look_over`. Its weights must be in the file, and its parts are counted."""
        require_plain(contents[0])

    def weight_bytes(self, artifact: Artifact) -> int:
        """See `Runtime.weight_bytes`. Packed weights count with their packed size."""
        return weight_bytes(artifact.path)


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    shape = tuple(size.dim_param or size.dim_value for size in kind.shape.dim)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
    return TensorSpec(value.name, shape, dtype)
